"""libvips, set up for reading files that may change and for memory that must stay bounded."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from scaleport.errors import BackendError

DECODED_IN_MEMORY: Final = 32 << 20
"""Bytes of pixels up to which a file is decoded to memory; larger ones go to a temporary file."""

_SYSTEM: Final = "system error: "


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
    return pyvips


def find_loader(path: Path) -> str:
    """Name of the libvips operation that would read a file, by its first bytes; empty for none.

    The file is not decoded.
    """
    vips = libvips()
    found = vips.vips_lib.vips_foreign_find_load(os.fsencode(path))
    if found == vips.ffi.NULL:
        vips.vips_lib.vips_error_clear()
        return ""
    return str(vips.ffi.string(found).decode())


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


def reason(error: Exception) -> str:
    """What libvips complained about, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        # A full disk matters more than which function met it.
        if line.startswith(_SYSTEM) and "Unknown" not in line:
            return line.removeprefix(_SYSTEM)
    # The first line repeats which Python call failed.
    kept = lines[1:] if len(lines) > 1 else lines
    return "; ".join(dict.fromkeys(kept)) or repr(error)
