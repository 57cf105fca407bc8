"""Questions about paths that a user gave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


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
