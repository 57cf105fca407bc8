"""What a file says about its picture: what another kind of file can hold, and how it is written.

What is written is true of the output: its colour space, sizes, orientation and density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.imaging import chunks, tiff, xmp
from scaleport.imaging.convert import Layout
from scaleport.imaging.vips import libvips

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
_KEEP: Final = {"exif-data": 1, "xmp-data": 2, "iptc-data": 4, "icc-profile-data": 8}
_KEEP_OTHER: Final = 16
_ONLY_IN_EXIF: Final = ("WebP", "AVIF")
"""Kinds of files that have no other place for the density."""
_UNKNOWN: Final = 72 / 25.4
"""What EXIF has for a density that is not known."""


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


def describe(image: Any, layout: Layout, metadata: Metadata, kind: str) -> Any:
    """An image of libvips with its colour space and metadata.

    Args:
        image: the pixels of the output.
        layout: of the output.
        metadata: of the source.
        kind: of the file to be.
    """
    vips = libvips()
    deep = layout.dtype == np.uint16
    gray = layout.channels < 3
    space = ("grey16" if deep else "b-w") if gray else ("rgb16" if deep else "srgb")
    across, down = metadata.density or (_UNKNOWN, _UNKNOWN)
    image = image.copy(interpretation=space, xres=across, yres=down)
    for name, value in _true(metadata, image).items():
        if name == "icc-profile-data" and not profile_fits(bytes(value), gray, kind):
            continue
        text = isinstance(value, str)
        image.set_type(vips.GValue.refstr_type if text else vips.GValue.blob_type, name, value)
    if metadata.density is not None:
        image.set_type(vips.GValue.refstr_type, "resolution-unit", "in")
    if "exif-data" in metadata.fields:
        # Pixels are upright, whatever the camera's block says.
        image.set_type(vips.GValue.gint_type, "orientation", 1)
    return image


def _true(metadata: Metadata, image: Any) -> dict[str, Any]:
    """The fields of a source, as they hold for an output."""
    fields = dict(metadata.fields)
    if "image-description" in fields:
        description = described(metadata)
        if description is None:
            del fields["image-description"]
    for name in fields:
        # The width and height of the main picture; those of thumbnails lie in ifd1.
        if name in ("exif-ifd0-ImageWidth", "exif-ifd4-RelatedImageWidth"):
            fields[name] = str(image.width)
        elif name in ("exif-ifd0-ImageLength", "exif-ifd4-RelatedImageLength"):
            fields[name] = str(image.height)
    if "xmp-data" in fields:
        shape = (image.height, image.width)
        packet = xmp.make_true(bytes(fields["xmp-data"]), metadata.turned, metadata.shape, shape)
        if packet.data is None:
            del fields["xmp-data"]
        else:
            fields["xmp-data"] = packet.data
    return fields


def kept_fields(metadata: Metadata, kind: str) -> int:
    """Kinds of metadata that there are; otherwise an EXIF block would be made up.

    WebP and AVIF get one for a density that is known.
    """
    flags = _KEEP_OTHER | sum(flag for name, flag in _KEEP.items() if name in metadata.fields)
    if metadata.density is not None and kind in _ONLY_IN_EXIF:
        flags |= _KEEP["exif-data"]
    return flags


def finish_file(path: Path, metadata: Metadata, kind: str) -> None:
    """Put into a file that was just written what libvips does not, and take out what it made up.

    Raises:
        OSError: if the file cannot be written.
    """
    known = metadata.density is not None
    if kind == "PNG":
        drop = b"sRGB" if "icc-profile-data" in metadata.fields else b""  # not beside a profile
        chosen = [chunk for chunk in metadata.chunks if chunk[0] != drop]
        chunks.finish_png(path, chosen, known)
    elif kind == "JPEG":
        chunks.finish_jpeg(path, metadata.density)
    elif kind == "TIFF" and not known:
        tiff.drop_density(path)
