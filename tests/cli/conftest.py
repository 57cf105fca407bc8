"""A folder with a bundle and a picture in it, and a way to run commands there."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from scaleport.cli.main import main
from scaleport.imaging.files import Image, save_image


class Ran(NamedTuple):
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def folder(tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``photo.bundle`` and ``photo.png`` (20x14)."""
    shutil.copytree(tiny_bundle("liif"), tmp_path / "photo.bundle")
    pixels = np.random.default_rng(5).integers(0, 256, (14, 20, 3), np.uint8)
    save_image(tmp_path / "photo.png", Image(pixels))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[[str], Ran]:
    """Run a command line without the word ``scaleport``, in this process."""

    def run(line: str) -> Ran:
        capfd.readouterr()
        code = main(shlex.split(line))
        return Ran(code, *capfd.readouterr())

    return run
