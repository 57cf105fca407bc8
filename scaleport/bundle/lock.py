"""A lock on a bundle that is being written, so that two exports do not mix."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from scaleport.errors import OutputError


class Lock:
    """Exclusive lock on one target, held by an open file so that it dies with the process."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        while True:
            self.file: IO[bytes] = path.open("ab")
            try:
                _lock_now(self.file)
            except BlockingIOError:
                self.file.close()
                raise OutputError(
                    f"another export is writing {target}; wait for it or choose another name"
                ) from None
            except BaseException:
                self.file.close()
                raise
            # The holder before may have removed the file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self.file.fileno()), path.stat()):
                    return
            self.file.close()

    def release(self) -> None:
        """Remove the file while the lock is held, then let go; harmless when repeated."""
        if not self.file.closed:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.file.close()


def _lock_now(file: IO[bytes]) -> None:
    """Lock an open file without waiting; BlockingIOError if another process holds it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
