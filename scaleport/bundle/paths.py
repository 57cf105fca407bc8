"""Which paths a manifest may list: those that mean the same file on every system."""

from __future__ import annotations

import unicodedata
from typing import Final

from scaleport.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME

MOST_PARTS: Final = 16
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"]
)


def path_problem(relpath: str) -> str | None:
    """Why a path may not be listed in a manifest; None if it may.

    Listed paths mean the same file on every system: relative, forward slashes, no ``.`` or ``..``,
    no drive letters, nothing unprintable, no name that Windows shortens or takes for a device.
    """
    if "\\" in relpath:
        return "holds a backslash"
    if relpath.startswith("/"):
        return "is absolute"
    if ":" in relpath or not relpath.isprintable():
        return "holds a colon or an unprintable character"
    parts = relpath.split("/")
    if len(parts) > MOST_PARTS:
        return f"is more than {MOST_PARTS} directories deep"
    for part in parts:
        if part in {"", ".", ".."}:
            return "has an empty, '.' or '..' part"
        if part != part.rstrip(". "):
            return "has a part that ends in a dot or a space"
        if part.split(".")[0].rstrip().casefold() in _RESERVED:
            return f"has a part that Windows takes for a device, {part!r}"
    if path_key(relpath) in {path_key(MANIFEST_NAME), path_key(SIGNATURE_NAME)}:
        return "is the manifest itself or its signature"
    return None


def path_key(relpath: str) -> str:
    """Key under which two paths count as the same file on a case-insensitive file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", relpath).casefold())
