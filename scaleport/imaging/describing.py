"""What is written beside the pixels: colour space, metadata and density, true of the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.imaging import chunks, tiff, xmp
from scaleport.imaging.convert import Layout
from scaleport.imaging.metadata import Metadata, described, profile_fits
from scaleport.imaging.vips import libvips

_KEEP: Final = {"exif-data": 1, "xmp-data": 2, "iptc-data": 4, "icc-profile-data": 8}
_KEEP_OTHER: Final = 16
_ONLY_IN_EXIF: Final = ("WebP", "AVIF")
"""Kinds of files that have no other place for the density."""
_UNKNOWN: Final = 72 / 25.4
"""What EXIF has for a density that is not known."""


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


def kept(metadata: Metadata, kind: str) -> int:
    """Kinds of metadata that there are; otherwise an EXIF block would be made up.

    WebP and AVIF get one for a density that is known.
    """
    flags = _KEEP_OTHER | sum(flag for name, flag in _KEEP.items() if name in metadata.fields)
    if metadata.density is not None and kind in _ONLY_IN_EXIF:
        flags |= _KEEP["exif-data"]
    return flags


def finish(path: Path, metadata: Metadata, kind: str) -> None:
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
