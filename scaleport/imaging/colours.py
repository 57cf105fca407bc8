"""Every colour space and type that libvips hands out, as gray or RGB of 8 or 16 bits or floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from scaleport.errors import ImageError

_LAB_AND_ALIKE: Final = ("lab", "labs", "xyz", "lch", "yxy", "oklab", "oklch", "labq")


def to_gray_or_rgb(path: Path, image: Any, alpha: bool | None, negative: bool) -> Any:
    """Convert an image of libvips, channel depth kept.

    Args:
        path: for errors.
        image: the image, upright.
        alpha: whether the channel behind the colours is alpha, where the file says so; None to
            leave it to libvips.
        negative: whether 0 is white. libvips inverts integers, but not floats.

    Raises:
        ImageError: if there is no conversion.
    """
    image = _in_rgb(image)
    if image.format in ("double", "float"):
        image = image.cast("float")
        if negative:
            image = 1 - image
    elif image.format in ("uint", "int", "short"):
        if image.min() < 0 or image.max() > 0xFFFF:
            raise ImageError(f"{path} holds 32-bit integers beyond the range of 16 bits")
        image = image.cast("ushort")
    elif image.format == "char":
        raise ImageError(f"{path} holds signed 8-bit integers, which are not supported")
    bits = _bits(image)
    if image.format == "ushort" and 8 < bits < 16:
        # libvips puts 10 and 12 bits at the top of 16, where white is not white.
        largest = ((1 << bits) - 1) << (16 - bits)
        image = (image * (0xFFFF / largest)).rint().cast("ushort")
    if image.bands == 4 and not (image.hasalpha() if alpha is None else alpha):
        raise ImageError(f"{path} has 4 colour channels; no conversion to RGB is known")
    return image


def _in_rgb(image: Any) -> Any:
    """The image in RGB, if its colour space is neither that nor gray."""
    if image.interpretation == "cmyk":
        # CMYK means nothing without a profile; one that comes with the library stands in.
        depth = 16 if image.format == "ushort" else 8
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif image.interpretation in _LAB_AND_ALIKE:
        deep = image.interpretation == "labs" or _bits(image) > 8
        image = image.colourspace("rgb16" if deep else "srgb")
    else:
        return image
    return _without(image, "icc-profile-data")


def _bits(image: Any) -> int:
    name = "bits-per-sample"
    return int(image.get(name)) if image.get_typeof(name) else 0


def _without(image: Any, name: str) -> Any:
    image = image.copy()
    if image.get_typeof(name):
        image.remove(name)
    return image
