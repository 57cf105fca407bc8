"""What the wheel holds, and that README's first lines work in an environment without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scaleport.imaging.files import load_image
from scaleport.ready import CHECKPOINTS, PURPOSES
from scaleport.shipped import shipped_weights

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 25_000_000
NOT_SHIPPED = {"tests", "tools", "docs", "examples", "benchmarks", "fuzz", "attacks", "web"}

pytestmark = pytest.mark.slow


def clone(target: Path) -> Path:
    """A copy of what git knows here, with the bundles of the package."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.split(b"\0")
    if listed == [b""]:
        pytest.skip("this is no git checkout")
    for name in filter(None, (entry.decode() for entry in listed)):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
    shutil.copytree(ROOT / "scaleport/ready", target / "scaleport/ready", dirs_exist_ok=True)
    return target


def pip(python: Path | str, *arguments: str, cwd: Path) -> None:
    command = [str(python), "-m", "pip", *arguments]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if "No matching distribution" in ran.stderr or "Connection" in ran.stderr:
        pytest.skip(f"no package index can be reached: {ran.stderr[-300:]}")
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(package_models, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    source = clone(place / "clone")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(place), ".", cwd=source)
    (made,) = place.glob("*.whl")
    return made


def test_the_wheel_holds_the_models_and_nothing_of_the_workshop(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith("METADATA"))
        metadata = archive.read(record).decode()
    tops = {name.split("/")[0] for name in names}
    assert not tops & NOT_SHIPPED
    assert len(tops) == 2  # the package, and what pip knows of it
    for name in PURPOSES:
        assert f"scaleport/ready/{name}.bundle/manifest.json" in names
        assert f"scaleport/ready/{name}.bundle/onnx/fp32/encode.onnx" in names
    for path in shipped_weights().values():
        assert f"scaleport/weights/{path.name}" in names
        assert f"scaleport/weights/{path.stem}.md" in names
    needed = {
        f"scaleport/ready/{CHECKPOINTS}",
        "scaleport/py.typed",
        "scaleport/catalogue.json",
        "scaleport/bundle/manifest.schema.json",
        "scaleport/golden/expected.npy",
        "scaleport/golden/tile.bundle/manifest.json",
    }
    assert needed <= set(names)
    assert any(re.fullmatch(r"scaleport/training/recipes/.*\.yaml", name) for name in names)
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "scaleport").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    assert not [name for name in names if name.endswith((".pyc", ".lock"))]
    assert wheel.stat().st_size < LARGEST_WHEEL
    assert "License-Expression: Apache-2.0" in metadata
    assert "Provides-Extra: onnxruntime" in metadata
    assert "# Scaleport" in metadata


def first_lines() -> list[str]:
    """Commands of README's first block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("## First picture")[1].split("```")[1]
    return [line.split("#")[0].strip() for line in block.splitlines()[1:] if line.strip()]


@pytest.mark.parametrize("extra", ["onnxruntime", "openvino"])
def test_the_first_lines_of_the_readme_make_a_picture_without_torch(
    package_models, tmp_path, extra
):
    install, upscale = first_lines()
    assert install == "pip install '.[onnxruntime]'"
    assert upscale == "scaleport upscale photo.jpg"
    source = clone(tmp_path / "clone")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    tools = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    pip(tools / "python", "install", "--quiet", f".[{extra}]", cwd=source)
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copyfile(ROOT / "examples/astronaut.jpg", place / "photo.jpg")

    def run(*arguments: str) -> str:
        command = [str(tools / "scaleport"), *arguments]
        ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    assert extra in run("upscale", "photo.jpg")
    made = load_image(place / "photo_x2.png").pixels
    assert made.shape == (512, 512, 3)
    assert next(iter(PURPOSES)) in run("models")
    for name in package_models:
        run("upscale", "photo.jpg", "-m", name, "-o", f"{name}.png")
        enlarged = load_image(place / f"{name}.png").pixels.astype(float)
        small = load_image(place / "photo.jpg").pixels
        reduced = enlarged.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
        assert abs(reduced - small).mean() < 4  # the same picture, of 255 levels
    torch = [str(tools / "python"), "-c", "import torch"]
    assert subprocess.run(torch, capture_output=True, check=False).returncode == 1
