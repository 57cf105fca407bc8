"""Files and folders that are complete under their names or not there at all.

What is in the making has a hidden name, by which :func:`remove_leftovers` finds what a killed
process left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from scaleport.errors import OutputError

_NAME: Final = re.compile(
    r"\.scaleport-([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{16}(\.[a-z0-9]+)*\.tmp"
)
_OLD: Final = 24 * 60 * 60
"""Seconds after which a file of another machine counts as left behind."""


class Pending:
    """A file in the making: hidden beside its target, which it replaces when it is complete.

    For writers whose work is spread over many calls; :func:`atomic_path` is a block around it.

    Args:
        target: the file to be; its folder exists.
        kind: what else its name ends in, before ``.tmp``, e.g. ``raw``.
        follow: whether a link stays one, and the file that it names is replaced.

    Attributes:
        path: where to write; nothing is there yet.
    """

    def __init__(self, target: Path, kind: str = "", follow: bool = True) -> None:
        self._final = Path(os.path.realpath(target)) if follow else target
        stem = temporary_stem(self._final)
        self.path = stem.with_name(f"{stem.name}{f'.{kind}' if kind else ''}.tmp")

    def write(self, data: bytes) -> None:
        """Write all of the file, which must not be there yet; raises OSError."""
        with self.path.open("xb") as file:
            file.write(data)

    def commit(self, sync: bool = True) -> None:
        """Put the file under its name.

        Args:
            sync: whether the bytes must be on the disk before the name is, for what has to outlive
                a power cut.

        Raises:
            OSError: if the system refuses; an older file is still there then.
        """
        if sync:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
        self.path.replace(self._final)

    def discard(self) -> None:
        """Remove the file, unless it has its name."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@contextmanager
def atomic_path(target: Path, sync: bool = False) -> Iterator[Path]:
    """A path to write to; what was written gets the target's name when the block ends well.

    The path lies hidden beside the target and ends in ``.tmp`` whatever the target's suffix is.
    If the block raises, it is removed and an older target stays. A link stays a link, the file
    that it names is replaced. What is no regular file, such as a pipe or ``/dev/stdout``, cannot
    be replaced and is written to as it is.

    Args:
        target: the file to write; its folder exists.
        sync: see :meth:`Pending.commit`.

    Raises:
        OutputError: if the system refuses, in the block too.
    """
    with written(target):
        final = Path(os.path.realpath(target))
        if final.exists() and not final.is_file():
            yield target
            return
        new = Pending(target)
        try:
            yield new.path
            new.commit(sync)
        finally:
            new.discard()


@contextmanager
def written(target: Path) -> Iterator[None]:
    """Turn what the system refuses in the block into one error about the target.

    Raises:
        OutputError: for any OSError.
    """
    try:
        yield
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


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it gets the target's name when the block ends well.

    Args:
        target: the folder to be; it may be there if it is empty.

    Raises:
        OutputError: if the system refuses, in the block too.
    """
    with written(target):
        final = Path(os.path.realpath(target))
        new = Path(f"{temporary_stem(final)}.tmp")
        try:
            new.mkdir()  # by the umask; tempfile makes folders for their owner only
            yield new
            if final.is_dir():
                final.rmdir()
            new.rename(final)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Put a folder in the place of another one, which cannot be overwritten at once.

    Args:
        new: the folder that is complete.
        target: the place, where a folder may be.
        aside: where that goes meanwhile; the caller removes it. All three lie side by side.

    Raises:
        OSError: if the system refuses; the former folder is in its place again then.
    """
    if target.exists():
        target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def temporary_stem(target: Path) -> Path:
    """A hidden path beside a target that no other process uses; add what ends in ``.tmp`` to it.

    The name says whose it is, so that :func:`remove_leftovers` can tell a file that is being
    written from one that never will be.
    """
    name = f".scaleport-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return target.with_name(name)


def remove_leftovers(folder: Path) -> int:
    """Remove what killed processes left in a folder; files of living ones stay.

    A process of this machine is asked for by its number. Files of another machine count as left
    behind after a day.

    Returns:
        How many files were removed.
    """
    try:
        entries = [entry for entry in folder.iterdir() if entry.name.startswith(".scaleport-")]
    except OSError:
        return 0
    removed = 0
    for path in entries:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError):
            dead = match[1] == _machine() and not psutil.pid_exists(int(match[2]))
            if dead or time.time() - path.stat().st_mtime > _OLD:
                path.unlink()
                removed += 1
    return removed
