"""A user's program is checked by ``mypy --strict`` against the types of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import scaleport

ROOT = Path(scaleport.__file__).parents[1]

PROGRAM = """
from pathlib import Path

import numpy as np
from PIL import Image

import scaleport

def show(done: float, total: float | None, text: str, /) -> None:
    print(done, total, text)


def enlarge(path: Path) -> tuple[int, int]:
    with scaleport.load("photo.bundle", backend="onnxruntime", threads=2) as up:
        pixels = up(np.zeros((4, 4, 3), np.uint8), scale=2.7, progress=show)
        up(Image.open(path), scale=(2, 3.5))
        up(path, size=(100, 200))
        view = up.open(path)
        rows, cols = view.output_size(2.5)
        part = view.render(scale=2.5, region=(0, 0, rows, cols))
        result: scaleport.FileResult = scaleport.upscale_file(up, path, "a.png", 2, progress=show)
        report = scaleport.upscale_files(up, [path], "larger/", scale=2)
        print(pixels.shape, part.dtype, report.made, up.manifest.scale.max, up.device)
    return result.output_size


def make(checkpoint: Path) -> bool:
    options = scaleport.ExportOptions(formats=("onnx",), precisions=("fp32",))
    bundle = scaleport.export(checkpoint, options=options, progress=show)
    parity = scaleport.validate(bundle, scaleport.ValidationOptions(selection="quick"))
    print(bundle.manifest.scale.max, [result.max_abs for result in parity.results])
    return scaleport.passed(parity)


policy = scaleport.TilePolicy(tile=128)
grid = scaleport.Grid.from_scale(48, 64, 2.7)
try:
    print(enlarge(Path("photo.jpg")), policy, grid.output_size)
except scaleport.ScaleportError as error:
    raise SystemExit(error.exit_code) from error
"""

WRONG = {
    "up(image, scale='2')": 'scaleport.load("a")("p.png", scale="2")',
    "a policy that is a number": 'scaleport.load("a", policy=256)',
    "a name that is not there": "scaleport.lode",
    "a region of three": 'scaleport.load("a").open("p.png").render(2, region=(0, 0, 1))',
}


def checked(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program)
    # Silent about the package itself, as mypy is about one that is installed.
    flags = ["--strict", "--config-file=", "--follow-imports=silent"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *flags, "program.py"],
        cwd=folder,
        env={"MYPYPATH": str(ROOT), "PATH": "", "MYPY_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_is_of_the_declared_types_and_mistakes_are_found(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert (Path(scaleport.__file__).parent / "py.typed").is_file()
    good = checked(PROGRAM, tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    for what, line in WRONG.items():
        wrong = checked(f"import scaleport\n\n{line}\n", tmp_path)
        assert wrong.returncode == 1, what
        assert wrong.stdout.count("error:") == 1, wrong.stdout
