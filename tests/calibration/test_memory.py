"""Peak memory of ``scaleport calibrate`` as a whole does not depend on the number of images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from calibration_samples import write_images

SIDE = 800

CHILD = """
import sys
from scaleport.benchmark.memory import peak_bytes
from scaleport.cli.main import main
code = main(sys.argv[1:])
print(peak_bytes())
sys.exit(code)
"""


def peak(checkpoint: Path, folder: Path, patches: int, bundle: Path) -> int:
    line = ("calibrate", str(checkpoint), "--data", str(folder), "--patches", str(patches))
    rest = ("--held-out", "2", "--max-loss", "20dB", "--format", "onnx", "--precision", "fp32")
    command = [sys.executable, "-c", CHILD, *line, *rest, "--threads", "1", "-q", "-o", str(bundle)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    return int(ran.stdout)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_10_and_500_images_take_the_same_memory(tiny_checkpoint, tmp_path):
    """One patch per image: all of them are read. Kept, 500 images would be 960 MB as bytes."""
    peaks = []
    for count in (10, 500):
        folder = write_images(tmp_path / str(count), 10, SIDE, SIDE)
        for number in range(10, count):
            (folder / f"{number:03}.png").hardlink_to(folder / f"{number % 10:03}.png")
        bundle = tmp_path / f"{count}.bundle"
        peaks.append(peak(tiny_checkpoint("liif"), folder, count, bundle))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.1)
