"""Files that are complete under their names or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scaleport.errors import OutputError
from scaleport.imaging.leftovers import temporary_stem


@contextmanager
def atomic_path(target: Path, sync: bool = False) -> Iterator[Path]:
    """A path to write to; what was written gets the target's name when the block ends well.

    The path lies hidden beside the target and ends in ``.tmp`` whatever the target's suffix is.
    If the block raises, it is removed and an older target stays. A link stays a link, the file
    that it names is replaced. What is no regular file, such as a pipe or ``/dev/stdout``, cannot
    be replaced and is written to as it is.

    Args:
        target: the file to write; its folder exists.
        sync: whether the bytes must be on the disk before the name is, for what has to outlive a
            power cut.

    Raises:
        OutputError: if the system refuses, in the block too.
    """
    try:
        final = Path(os.path.realpath(target))
        if final.exists() and not final.is_file():
            yield target
            return
        new = Path(f"{temporary_stem(final)}.tmp")
        try:
            yield new
            if sync:
                with new.open("rb+") as file:
                    os.fsync(file.fileno())
            new.replace(final)
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def write_bytes(target: Path, data: bytes, sync: bool = False) -> None:
    """Write a file at once, see :func:`atomic_path`; raises OutputError."""
    with atomic_path(target, sync) as new:
        new.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8 at once, see :func:`atomic_path`; raises OutputError."""
    with atomic_path(target) as new:
        new.write_text(text, encoding="utf-8")


def write_new(path: Path, data: bytes) -> None:
    """Create a file whose bytes are on the disk on return, for writers that rename it themselves.

    Raises:
        OSError: if it exists already or cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
