"""Node, the packages of ``web/``, and Chromium: skipped with a reason where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
_BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node 20 or later; the packages of ``web/`` are installed."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout[1:].split(".")[0]) < 20:
        pytest.skip(f"node {version.stdout.strip()} is older than 20")
    if not (WEB / "node_modules/onnxruntime-web").is_dir():
        pytest.skip("the packages of web/ are not installed: run npm ci there")
    return found


@pytest.fixture(scope="session")
def browser() -> str:
    """Path of an installed Chromium."""
    given = os.environ.get("SCALEPORT_CHROMIUM", "")
    found = next((p for p in ([given] if given else _BROWSERS) if Path(p).is_file()), None)
    if found is None:
        pytest.skip("Chromium is not installed; SCALEPORT_CHROMIUM can name one")
    return found


@pytest.fixture(scope="session")
def built(node: str, shared) -> Path:
    """``web/`` with its tests built, once for all workers."""

    def make(path: Path) -> None:
        ran = subprocess.run(
            [node, "build.mjs", "test"], cwd=WEB, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        path.touch()

    shared("web-built", make)
    return WEB


@pytest.fixture(scope="session")
def vectors(tiny_bundle, shared) -> Path:
    """What the Python side makes of the grid, of resampling and of two small networks."""
    from web_vectors import write

    bundles = [tiny_bundle("liif", "onnx"), tiny_bundle("igconv", "onnx")]
    return shared("web-vectors", lambda path: write(path, bundles))
