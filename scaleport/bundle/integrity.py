"""Whether the files of a bundle are what it says: their hashes, their paths, a sound manifest.

:func:`sha256_file` hashes a file, here and wherever one is recorded. :func:`path_problem` tells
which paths may be listed. :func:`refuse_duplicates` and :func:`refuse_excess` refuse what a parser
of JSON lets pass, and :func:`check_consistent` what the schema of a manifest lets pass.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from scaleport.bundle.manifest import MANIFEST_NAME, SIGNATURE_NAME, FileEntry, Manifest

_CHUNK = 1 << 20
MOST_PARTS: Final = 16
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"]
)
MOST_DEPTH: Final = 32
MOST_VALUES: Final = 250_000
LONGEST_TEXT: Final = 4096
LARGEST_INTEGER: Final = 1 << 63
MAX_BUNDLE_BYTES = 64 << 30
"""Most that the listed files may hold together."""


def sha256_file(path: Path) -> FileEntry:
    """Hash and size in bytes of a file, read once and in pieces; raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def file_stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file: the place, size and times that the system keeps of it."""
    status = path.stat()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
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


def refuse_duplicates(data: bytes) -> None:
    """Refuse a JSON document in which an object names a key twice.

    Parsers differ in which of the two they keep, so that what was checked need not be what is used.

    Raises:
        ValueError: with one line; also if it is not JSON.
        RecursionError: if it is nested beyond what the parser takes.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"duplicate key {twice[:80]!r}")
        return found

    json.loads(data, object_pairs_hook=unique)


def refuse_excess(value: Any, label: str) -> None:
    """Refuse a JSON value of free form that is deep, large or holds texts or numbers beyond reason.

    Raises:
        ValueError: with one line that starts with ``label``.
    """
    level, count = [value], 0
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
            elif isinstance(item, str) and len(item) > LONGEST_TEXT:
                raise ValueError(f"{label} holds a text of {len(item)} characters")
            elif isinstance(item, int) and not -LARGEST_INTEGER <= item < LARGEST_INTEGER:
                raise ValueError(f"{label} holds an integer of {item.bit_length()} bits")
        count += len(inner)
        if count > MOST_VALUES:
            raise ValueError(f"{label} holds more than {MOST_VALUES} values")
        if not inner:
            return
        level = inner
    raise ValueError(f"{label} is nested more than {MOST_DEPTH} deep")


def entries_under(files: Iterable[str], relpath: str) -> list[str]:
    """The listed files that a path stands for: itself, or all below it if it is a directory."""
    return [name for name in files if name == relpath or name.startswith(relpath + "/")]


def check_consistent(manifest: Manifest) -> None:
    """Check what the schema alone cannot say.

    Listed paths are sound and differ in more than case, graphs are listed files, ranges are not
    empty, and what has a free form is of a reasonable size.

    Raises:
        ValueError: with one line that says what is wrong.
    """
    seen: dict[str, str] = {}
    for relpath in manifest.files:
        problem = path_problem(relpath)
        if problem:
            raise ValueError(f"the listed path {relpath!r} {problem}")
        other = seen.setdefault(path_key(relpath), relpath)
        if other != relpath:
            raise ValueError(f"the listed paths {other!r} and {relpath!r} differ in case only")
    known = set(manifest.files)
    for relpath in manifest.files:
        known.update(str(parent) for parent in parents(relpath))
    for fmt, graphs in manifest.graphs.items():
        for graph in graphs:
            if graph.path not in known:
                raise ValueError(f"the {fmt} graph {graph.path!r} is not among the listed files")
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise ValueError(f"it declares more than {MAX_BUNDLE_BYTES >> 30} GiB")
    if manifest.scale.min > manifest.scale.max:
        raise ValueError("its smallest scale is larger than its largest")
    for name, axis in (("height", manifest.height), ("width", manifest.width)):
        if not axis.min <= axis.opt <= axis.max:
            raise ValueError(f"its range of {name} is not min <= opt <= max")
    refuse_excess(manifest.model, "the model's configuration")


def parents(relpath: str) -> Iterator[str]:
    """The directories above a listed path, the nearest first."""
    while "/" in relpath:
        relpath = relpath.rsplit("/", 1)[0]
        yield relpath
