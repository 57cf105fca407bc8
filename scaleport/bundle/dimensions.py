"""Names of dynamic dimensions, and the lengths that they stand for."""

from __future__ import annotations

import re
from typing import Final

_CONTINUED: Final = re.compile(r"([HW])([1-9][0-9]{0,3})")


def split_dimension(name: str) -> tuple[str, int]:
    """The axis of a dimension and the windows that it is continued to: ``H8`` is ``H`` and 8.

    Any other name is an axis of windows of 1.
    """
    match = _CONTINUED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, 1)


def continued(length: int, window: int) -> int:
    """The least length in whole windows."""
    return -(-length // window) * window


def continued_most(length: int, window: int) -> int:
    """The largest: some networks add a whole window to what needs none."""
    return length if window == 1 else (length // window + 1) * window
