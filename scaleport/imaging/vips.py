"""libvips, set up for reading files that may change and for memory that must stay bounded."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from scaleport.errors import BackendError

_SYSTEM = "system error: "


@lru_cache(maxsize=1)
def libvips() -> Any:
    """The module ``pyvips``.

    Raises:
        BackendError: if it is not installed or cannot find its library.
    """
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise BackendError(
            f"image files need libvips: pip install 'pyvips[binary]' ({error})"
        ) from error
    # Results of operations are never asked for twice, and a cached file would be an old one.
    pyvips.cache_set_max(0)
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
