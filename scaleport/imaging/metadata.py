"""What a file says about its picture, and what of that another kind of file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scaleport.imaging import chunks, xmp
from scaleport.imaging.convert import Layout

FIELDS: Final = ("exif-", "icc-profile-data", "xmp-data", "iptc-data", "image-description")
"""How the names begin of what is kept, as libvips names it."""

_LOSES: Final = {
    "EXIF": ("exif-data", ("TIFF",)),
    "IPTC": ("iptc-data", ("PNG", "WebP", "AVIF")),
    "image description": ("image-description", ("PNG", "JPEG", "WebP", "AVIF")),
}
"""Blocks that kinds of files cannot hold, or that libvips does not write there."""
_GENERATED: Final = ("<?xml", "<OME", "ImageJ=", '{"shape"')
"""How descriptions begin that programs of microscopy read sizes from."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture.

    Attributes:
        fields: ICC profile, EXIF, XMP and IPTC, as libvips names them. Sizes and orientation in
            them are made true when they are written.
        density: pixels per millimetre, horizontally and vertically; None if not known.
        chunks: text and colour chunks of a PNG file.
        shape: height and width of the upright picture that the file held.
        turned: whether its pixels were turned or mirrored to be upright.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    density: tuple[float, float] | None = None
    chunks: tuple[chunks.Chunk, ...] = ()
    shape: tuple[int, int] | None = field(default=None, compare=False)
    turned: bool = field(default=False, compare=False)

    @property
    def icc(self) -> bytes | None:
        """ICC colour profile."""
        found = self.fields.get("icc-profile-data")
        return None if found is None else bytes(found)


def left_out(
    metadata: Metadata, kind: str, layout: Layout, shape: tuple[int, int]
) -> tuple[str, ...]:
    """Sentences about what a file of a kind will not hold of a picture's metadata.

    Args:
        metadata: of the source.
        kind: of the target, e.g. ``JPEG``.
        layout: of the target.
        shape: height and width of the target.
    """
    notes = []
    for name, (key, kinds) in _LOSES.items():
        if key in metadata.fields and kind in kinds:
            block = "" if name == "image description" else " block"
            notes.append(f"{kind} keeps no {name}{block}")
    if kind == "TIFF" and described(metadata) is None and "image-description" in metadata.fields:
        notes.append("the image description, which states the former size, is left out")
    icc = metadata.icc
    if icc is not None and not profile_fits(icc, layout.channels < 3, kind):
        notes.append("the colour profile does not fit the channels of the output and is left out")
    if "xmp-data" in metadata.fields:
        packet = xmp.make_true(
            bytes(metadata.fields["xmp-data"]), metadata.turned, metadata.shape, shape
        )
        notes += [f"{what} is left out" for what in packet.left_out]
    if kind != "PNG":
        notes += _lost_chunks(metadata, kind)
    return tuple(notes)


def _lost_chunks(metadata: Metadata, kind: str) -> list[str]:
    """What only PNG can say."""
    notes = []
    words = [chunks.keyword(chunk) for chunk in metadata.chunks if chunk[0] in chunks.TEXT]
    if words:
        notes.append(f"{kind} keeps no text of PNG: {', '.join(dict.fromkeys(words))}")
    if metadata.icc is None and chunks.says_more_than_srgb(metadata.chunks):
        notes.append(f"{kind} cannot state the gamma, primaries or HDR of the source, not sRGB")
    return notes


def described(metadata: Metadata) -> str | None:
    """The description of the picture; None if there is none, or one that states its size."""
    found = metadata.fields.get("image-description")
    return None if found is None or str(found).startswith(_GENERATED) else str(found)


def profile_fits(icc: bytes, gray: bool, kind: str) -> bool:
    """Whether a profile describes what the file will hold; bytes 16 to 19 name its colour space."""
    if icc[16:20] == b"GRAY":
        return gray and kind not in ("WebP", "AVIF")  # these store gray as RGB
    return icc[16:20] == b"RGB " and (not gray or kind in ("WebP", "AVIF"))
