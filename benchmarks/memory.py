"""Peak memory and time of whole files, by backend, size of image and tile.

Every row is a process of its own that loads the bundle, upscales one PNG to another and says how
much memory it had at most (resident, everything included) and how long the upscale took::

    python benchmarks/memory.py --bundle igconv-small.bundle --json memory.json
    python benchmarks/memory.py --bundle igconv-small.bundle --tiles 32,64,128,256,512 --sides 1024

``--linear`` is the question of whether time follows the number of pixels; ask it on an otherwise
idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from scaleport.atomic import write_text
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.imaging.files import Image, save_image
from scaleport.shipped import find_checkpoint

CHILD = """
import json, sys, time
from scaleport.benchmark.memory import peak_bytes
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy
bundle, backend, source, target, scale, tile, threads = sys.argv[1:]

up = load(bundle, backend, threads=int(threads), policy=TilePolicy(tile=int(tile)))
up.device
loaded = peak_bytes()
start = time.perf_counter()
upscale_file(up, source, target, float(scale))
seconds = time.perf_counter() - start
print(json.dumps({"loaded": loaded, "peak": peak_bytes(), "seconds": seconds}))
"""


def photo(folder: Path, side: int) -> Path:
    """A PNG of side x side pixels that is neither flat nor noise."""
    path = folder / f"{side}.png"
    if not path.exists():
        ramp = np.add.outer(np.arange(side), np.arange(side))[..., None] // np.array([7, 9, 13])
        save_image(path, Image((ramp % 256).astype(np.uint8)))
    return path


def measure(
    bundle: Path, backend: str, source: Path, scale: float, tile: int, threads: int
) -> dict[str, float]:
    """Bytes of a process with the model loaded and at its peak, and seconds of the upscale."""
    target = source.parent / "out.png"
    arguments = [str(v) for v in (bundle, backend, source, target, scale, tile, threads)]
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="made of igconv-small if it is not there")
    parser.add_argument("--backends", default="onnxruntime,openvino")
    parser.add_argument("--sides", default="2048:4,4096:2", help="side:scale, of square images")
    parser.add_argument("--tiles", default="256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--linear", action="store_true", help="256 to 2048 pixels at x2")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sides = "256:2,512:2,1024:2,2048:2" if args.linear else args.sides
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = args.bundle or Path(scratch) / "igconv-small.bundle"
        if not bundle.exists():
            options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32",))
            export_bundle(find_checkpoint("igconv-small"), bundle, options)
        print("backend        side scale  tile  loaded MB  peak MB  seconds  us/LR pixel")
        for backend in args.backends.split(","):
            for pair in sides.split(","):
                side, scale = pair.split(":")
                source = photo(Path(scratch), int(side))
                for tile in args.tiles.split(","):
                    found = measure(bundle, backend, source, float(scale), int(tile), args.threads)
                    rows.append({"backend": backend, "side": int(side), "scale": float(scale)})
                    rows[-1].update(tile=int(tile), **found)
                    print(
                        f"{backend:12} {side:>6} {scale:>5} {tile:>5}  {found['loaded'] / 1e6:9.0f}"
                        f"  {found['peak'] / 1e6:7.0f}  {found['seconds']:7.1f}"
                        f"  {found['seconds'] * 1e6 / int(side) ** 2:11.2f}",
                        flush=True,
                    )
    if args.json:
        write_text(args.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
