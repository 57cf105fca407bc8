"""Which files of a folder are ground truth: to train, calibrate and score on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""What counts as an image in a folder of them."""

KNOWN: Final = ", ".join(sorted(SUFFIXES))
"""The same, for errors."""


def images_in(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, sorted; none of the folders in it. Raises OSError."""
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))


def images_below(folder: Path) -> tuple[Path, ...]:
    """The images of a folder and of all folders below it, sorted."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return tuple(sorted(path for path in found if path.is_file()))
