"""A lock on a bundle that is being written, so that two exports do not mix."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from scaleport.errors import OutputError

_PATIENCE: Final = 0.2
"""Seconds: a holder that is just leaving removes the file, and the next try makes a new one."""


def locked(path: Path, target: Path) -> BaseFileLock:
    """Lock a target; the lock dies with the process.

    Args:
        path: the lock's file, which is made.
        target: what it stands for.

    Raises:
        OutputError: if another writer holds it.
        OSError: if the file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 4)
    except Timeout:
        raise OutputError(
            f"another export is writing {target}; wait for it or choose another name"
        ) from None
    return lock


def unlock(lock: BaseFileLock) -> None:
    """Remove the file while the lock is held, then let go; harmless when repeated."""
    if lock.is_locked:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
