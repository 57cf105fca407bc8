"""Hash and size of a file: what a manifest, a journal and an engine's record hold of one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scaleport.bundle.manifest import FileEntry

_CHUNK = 1 << 20


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
