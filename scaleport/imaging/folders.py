"""Which files of a folder are ground truth: to train, calibrate and score on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scaleport.imaging.kinds import READ_SUFFIXES

SUFFIXES: Final = READ_SUFFIXES
"""What counts as an image in a folder of them: every kind that is read."""

KNOWN: Final = ", ".join(sorted(SUFFIXES))
"""The same, for errors."""


def images_in(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, sorted; hidden ones and folders in it are left out. Raises OSError.

    Copying from a Mac leaves hidden files such as ``._photo.jpg`` that are no images.
    """
    return tuple(sorted(path for path in folder.iterdir() if _is_image(path)))


def images_below(folder: Path) -> tuple[Path, ...]:
    """The images of a folder and of all folders below it, sorted; nothing hidden."""
    found = (path for path in folder.rglob("*") if _is_image(path))
    shown = (path for path in found if not _hidden(path.relative_to(folder)))
    return tuple(sorted(path for path in shown if path.is_file()))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
