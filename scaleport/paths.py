"""Questions about paths that a user gave."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from scaleport.errors import OutputError


def holds(question: Callable[[], bool]) -> bool:
    """The answer to a question such as ``path.exists``; no, where the system refuses the path.

    A name may be too long, for one; opening or writing the path then says so.
    """
    try:
        return question()
    except (OSError, ValueError):
        return False


def same_file_key(path: Path) -> str:
    """Equal for two spellings of one path, such as relative and absolute; links stay apart."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def make_folder(folder: Path) -> list[Path]:
    """Make a folder for outputs, and those above it.

    Returns:
        The folders that were missing, the deepest first, for :func:`remove_empty`.

    Raises:
        OutputError: if the system refuses.
    """
    missing = [path for path in (folder, *folder.parents) if not holds(path.exists)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        remove_empty(missing)
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(
            f"cannot write to {folder}: {why or error}; choose another place"
        ) from error
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that hold nothing; one that lies in another comes first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
