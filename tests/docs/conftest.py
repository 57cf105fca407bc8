"""A folder with the files that the pages name: small ones, and the bundle of a tiny network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from documents import BUNDLE, PHOTO

from scaleport.imaging.files import Image, save_image


@pytest.fixture
def folder(tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_bundle("liif"), tmp_path / BUNDLE)
    save_image(tmp_path / "photo.jpg", Image(PHOTO))
    (tmp_path / "scans/old").mkdir(parents=True)
    save_image(tmp_path / "scans/page.jpg", Image(PHOTO[:9, :8]))
    save_image(tmp_path / "scans/old/page.tif", Image(PHOTO[:7, :6]))
    monkeypatch.chdir(tmp_path)
    return tmp_path
