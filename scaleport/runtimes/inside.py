"""What a backend can tell of a graph beyond its outputs, for the tools that look for faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import Graph
from scaleport.grid import Grid

_LENGTHS: Final = {"N": 1, "H": 11, "W": 13, "Ho": 22, "Wo": 26, "S": 2}


@dataclass(frozen=True)
class Inner:
    """One tensor as a backend computed it: name, kind of operation, value, in graph order.

    ``module`` is the PyTorch module that the operation came from; empty if it is not known.
    """

    name: str
    operation: str
    value: Array
    module: str = ""


@dataclass(frozen=True)
class Operations:
    """The operations of one graph on one backend.

    Attributes:
        count: how many there are, after what the backend folds on loading.
        kinds: different kinds among them.
        places: operations by what runs them, e.g. a provider of ONNX Runtime.
        unsupported: kinds that the backend does not take.
    """

    count: int
    kinds: int
    places: Mapping[str, int] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()


def trial_feeds(graph: Graph) -> dict[str, Array]:
    """Small inputs of fitting types and shapes for a stage: 11x13 pixels, doubled."""
    grid = Grid.from_size(_LENGTHS["H"], _LENGTHS["W"], _LENGTHS["Ho"], _LENGTHS["Wo"])
    known = {**grid.feeds(), "cell": grid.cell}
    feeds = {}
    for tensor in graph.inputs:
        shape = [d if isinstance(d, int) else _LENGTHS.get(d, 1) for d in tensor.shape]
        value = known.get(tensor.name)
        feeds[tensor.name] = np.full(shape, 0.5, tensor.dtype) if value is None else value
    return feeds
