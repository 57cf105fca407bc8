"""Questions about paths that a user gave."""

from __future__ import annotations

from collections.abc import Callable


def holds(question: Callable[[], bool]) -> bool:
    """The answer to a question such as ``path.exists``; no, where the system refuses the path.

    A name may be too long, for one; opening or writing the path then says so.
    """
    try:
        return question()
    except (OSError, ValueError):
        return False
