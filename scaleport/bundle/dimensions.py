"""Names of dynamic dimensions, and of graphs that have none: bundles of fixed shapes."""

from __future__ import annotations

import re
from typing import Final

from scaleport.bundle.manifest import Graph, fixed_sides

_CONTINUED: Final = re.compile(r"([HW])([1-9][0-9]{0,3})")
SMALL: Final = "_small"
"""Ends the names of the stages for pictures that are smaller than the fixed shape."""
WHOLE: Final = "whole_x"
"""Begins the names of graphs from an image of the fixed shape to its pixels at one scale."""


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


def fixed_output(graph: Graph) -> tuple[int, int] | None:
    """Height and width of what a graph renders; None if it is any size."""
    return fixed_sides(graph.outputs[0])


def whole_name(scale: float) -> str:
    """Name of the graph from an image to its pixels at one scale: ``whole_x2``, ``whole_x2.7``."""
    return f"{WHOLE}{scale:g}"


def scale_of(stage: str) -> float | None:
    """The scale of such a graph; None of any other stage."""
    if not stage.startswith(WHOLE):
        return None
    try:
        return float(stage.removeprefix(WHOLE))
    except ValueError:
        return None
