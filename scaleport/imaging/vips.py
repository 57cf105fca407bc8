"""libvips, set up for files that may change and for bounded memory; its images in gray or RGB."""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from scaleport.errors import BackendError, ImageError

DECODED_IN_MEMORY: Final = 32 << 20
"""Bytes of pixels up to which a file is decoded to memory; larger ones go to a temporary file."""

_SYSTEM: Final = "system error: "
_LAB_AND_ALIKE: Final = ("lab", "labs", "xyz", "lch", "yxy", "oklab", "oklch", "labq")


@lru_cache(maxsize=1)
def libvips() -> Any:
    """The module ``pyvips``.

    Raises:
        BackendError: if it is not installed or cannot find its library.
    """
    # Read once by the library, at the first picture; what a user has set stays.
    os.environ.setdefault("VIPS_DISC_THRESHOLD", str(DECODED_IN_MEMORY))
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise BackendError(
            f"image files need libvips: pip install 'pyvips[binary]' ({error})"
        ) from error
    # Results of operations are never asked for twice, and a cached file would be an old one.
    pyvips.cache_set_max(0)
    _log_warnings_only(pyvips)
    _read_any_error(pyvips)
    return pyvips


def _read_any_error(pyvips: Any) -> None:
    """Let errors quote a file whose bytes are not UTF-8.

    pyvips would fail to decode the message, raise that instead of the error, and keep the message
    for every error that follows.
    """
    ffi = pyvips.ffi

    def text(pointer: Any) -> str:
        if pointer == ffi.NULL:
            return "NULL"
        raw: bytes = ffi.string(pointer)
        return raw.decode("utf-8", "backslashreplace")

    pyvips.error._to_string = text


def native(path: Path) -> bytes:
    """A path as libvips takes it. Names need not be UTF-8, and brackets in them mean nothing."""
    return os.fsencode(path)


def field_names(image: Any) -> list[str]:
    """Names of what an image says beside its pixels, those that are UTF-8.

    libvips makes names of keywords in a file, which may be in any encoding.
    """
    vips = libvips()
    array = vips.vips_lib.vips_image_get_fields(image.pointer)
    names, at = [], 0
    while array[at] != vips.ffi.NULL:
        raw = vips.ffi.string(array[at])
        with contextlib.suppress(UnicodeDecodeError):
            names.append(raw.decode())
        vips.glib_lib.g_free(array[at])
        at += 1
    vips.glib_lib.g_free(array)
    return names


def _log_warnings_only(pyvips: Any) -> None:
    """Have Python called back for warnings, not for the remarks that every operation makes.

    A signal such as Ctrl-C often arrives while libvips is at work; the first Python code to run
    after it would be that callback, whose exceptions, and so the signal, are ignored.
    """
    flags = pyvips.GLogLevelFlags
    serious = flags.LEVEL_WARNING | flags.LEVEL_CRITICAL | flags.LEVEL_ERROR | flags.FLAG_FATAL
    try:
        pyvips._remove_log_handler()
        pyvips._log_handler_id = pyvips.glib_lib.g_log_set_handler(
            b"VIPS", serious, pyvips._log_handler_cb, pyvips.ffi.NULL
        )
    except AttributeError:
        return  # another version of pyvips, built otherwise


def system_fault(error: Exception) -> str:
    """What the operating system refused when libvips failed, such as space; empty for nothing."""
    for line in str(error).splitlines():
        text = line.strip()
        if text.startswith(_SYSTEM) and "Unknown" not in text:
            return text.removeprefix(_SYSTEM)
    return ""


def reason(error: Exception) -> str:
    """What libvips complained about, in one line."""
    # A full disk matters more than which function met it.
    if fault := system_fault(error):
        return fault
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line repeats which Python call failed.
    kept = lines[1:] if len(lines) > 1 else lines
    return "; ".join(dict.fromkeys(kept)) or repr(error)


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
