"""Bundles of fixed shapes: graphs without dynamic dimensions, and what they are called."""

from __future__ import annotations

from typing import Final

from scaleport.bundle.manifest import Graph, Manifest, Tensor

SMALL: Final = "_small"
"""Ends the names of the stages for pictures that are smaller than the fixed shape."""
WHOLE: Final = "whole_x"
"""Begins the names of graphs from an image of the fixed shape to its pixels at one scale."""


def fixed_size(manifest: Manifest) -> tuple[int, int] | None:
    """Height and width of the only image that the graphs take; None if they take any size."""
    for graphs in manifest.graphs.values():
        for graph in graphs:
            if graph.stage == "encode":
                image = next(t for t in graph.inputs if t.name == "image")
                return _fixed(image)
    return None


def fixed_output(graph: Graph) -> tuple[int, int] | None:
    """Height and width of what a graph renders; None if it is any size."""
    return _fixed(graph.outputs[0])


def _fixed(image: Tensor) -> tuple[int, int] | None:
    height, width = image.shape[2:]
    both = isinstance(height, int) and isinstance(width, int)
    return (int(height), int(width)) if both else None


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
