"""A folder with the files that the pages name: small ones, and the bundle of a tiny network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import BUNDLE, PHOTO

from scaleport import ready
from scaleport.imaging.files import Image, save_image


@pytest.fixture
def folder(tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(tiny_bundle("liif"), tmp_path / BUNDLE)
    save_image(tmp_path / "photo.jpg", Image(PHOTO))
    (tmp_path / "scans/old").mkdir(parents=True)
    save_image(tmp_path / "scans/page.jpg", Image(PHOTO[:9, :8]))
    save_image(tmp_path / "scans/old/page.tif", Image(PHOTO[:7, :6]))
    monkeypatch.chdir(tmp_path)
    # Named models are the same small network, so that pages can be run where none have been made.
    models = tmp_path / "ready"
    models.mkdir()
    for name in ready.PURPOSES:
        (models / f"{name}.bundle").symlink_to(tmp_path / BUNDLE)
    monkeypatch.setattr(ready, "READY", models)
    ready._range.cache_clear()
    yield tmp_path
    ready._range.cache_clear()
