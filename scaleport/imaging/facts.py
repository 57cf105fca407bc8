"""What must be known of a file before libvips decodes it, for every kind in one form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from scaleport.imaging import chunks, tiff
from scaleport.imaging.kinds import AVIF, HEIC, JPEG, PNG, TIFF, Kind
from scaleport.imaging.plain import check_size

_BOXES: Final = 1 << 16
"""Bytes of an AVIF or HEIC file that hold the boxes before its pixels."""


@dataclass(frozen=True)
class Facts:
    """What a file says that libvips does not tell, or tells too late.

    Attributes:
        page: which page is read.
        alpha: whether the channel behind the colours is alpha; None to leave it to libvips.
        negative: whether 0 is white.
        density: pixels per millimetre as stored, across and down; None if not said here.
        kept: text and colour chunks, as PNG has them.
        notes: sentences about what is not read.
        check: compares checksums that the decoder does not; raises ImageError.
    """

    page: int = 0
    alpha: bool | None = None
    negative: bool = False
    density: tuple[float, float] | None = None
    kept: tuple[chunks.Chunk, ...] = ()
    notes: tuple[str, ...] = ()
    check: Callable[[], None] | None = None


def facts_of(path: Path, place: Path, kind: Kind, file: BinaryIO, most_pixels: int) -> Facts:
    """Read what a file says.

    Args:
        path: what it is called in errors.
        place: where it is read from.
        kind: its kind.
        file: the same, open.
        most_pixels: limit of what it may declare.

    Raises:
        ImageError: if it is damaged, unsupported, or declares more than ``most_pixels``.
    """
    if kind is TIFF:
        return _of_tiff(path, place, file, most_pixels)
    if kind is PNG:
        png = chunks.png_facts(path, file)
        notes = only_first(png.frames)
        if png.dropped:
            notes += ("text that is damaged or beyond 16 MiB was left out",)
        return Facts(density=png.density, kept=png.kept, notes=notes)
    if kind is JPEG:
        jpeg = chunks.jpeg_facts(file)
        notes = only_first(jpeg.pictures, "pictures")
        notes += ("comments were left out",) if jpeg.comments else ()
        return Facts(density=jpeg.density, notes=notes)
    if kind in (AVIF, HEIC):
        file.seek(0)
        return Facts(kept=chunks.colours_of_boxes(file.read(_BOXES)))
    return Facts()


def _of_tiff(path: Path, place: Path, file: BinaryIO, most_pixels: int) -> Facts:
    said = tiff.read_facts(path, file)
    # Before libvips, which complains on stderr of sizes beyond its own limit.
    check_size(path, said.width, said.height, most_pixels)

    def check() -> None:
        tiff.check_deflate(place, path, said.page)

    return Facts(
        page=said.page,
        alpha=said.alpha,
        negative=said.photometric == 0,
        density=said.density,
        notes=only_first(said.pages),
        check=check if said.deflate else None,
    )


def only_first(count: int, what: str = "frames") -> tuple[str, ...]:
    """The note about a file that holds several pictures."""
    return (f"only the first of {count} {what} was read",) if count > 1 else ()
