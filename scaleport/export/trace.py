"""Example tensors and dynamic dimensions for tracing a stage."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor

from scaleport.bundle.dimensions import continued, split_dimension
from scaleport.grid import Grid, subpixel_centres
from scaleport.models.base import Port, Stage


@dataclasses.dataclass(frozen=True)
class TraceSizes:
    """Sizes that a stage is traced with; nothing of them may remain in the graph.

    Heights and widths are beyond twice the largest window of any network (64): traced inside a
    single window, a graph would be fixed to one window. Nothing is computed at these sizes.
    """

    batch: int = 2
    height: int = 139
    width: int = 131
    out_height: int = 311
    out_width: int = 293
    scale: int = 3

    def length(self, name: str) -> int:
        """Length of a named dimension."""
        axis, window = split_dimension(name)
        lengths = {
            "N": self.batch,
            "H": self.height,
            "W": self.width,
            "Ho": self.out_height,
            "Wo": self.out_width,
            "S": self.scale,
        }
        return continued(lengths[axis], window)


SECOND_TRACE = TraceSizes(3, 167, 151, 353, 347, 5)
"""Sizes that share no length with the default ones, for the lint's second trace."""


def example_inputs(stage: Stage, sizes: TraceSizes) -> tuple[Tensor, ...]:
    """One tensor per input port: a real grid where the port is part of one, else noise."""
    grid = Grid.from_size(sizes.height, sizes.width, sizes.out_height, sizes.out_width)
    known = {name: torch.from_numpy(value) for name, value in grid.feeds().items()}
    known["cell"] = torch.from_numpy(grid.cell)
    known["subpixel"] = torch.from_numpy(subpixel_centres(sizes.scale))
    known["kept_rows"] = torch.arange(sizes.height, dtype=torch.float32)
    known["kept_cols"] = torch.arange(sizes.width, dtype=torch.float32)
    known["rows"] = torch.arange(sizes.height, dtype=torch.int32).clamp(max=sizes.height - 4)
    known["cols"] = torch.arange(sizes.width, dtype=torch.int32).clamp(max=sizes.width - 3)
    generator = torch.Generator().manual_seed(0)

    def make(port: Port) -> Tensor:
        if port.name in known:
            return known[port.name]
        shape = [sizes.length(d) if isinstance(d, str) else d for d in port.shape]
        return torch.rand(shape, generator=generator)

    return tuple(make(port) for port in stage.inputs)


def dynamic_shapes(stage: Stage) -> tuple[Any, ...]:
    """Dynamic dimensions of every input, for ``torch.export`` and ``torch.onnx.export``.

    Both want those of a variable number of arguments, as in ``forward(feature, *grid)``, as one
    tuple.
    """
    dims: dict[str, Any] = {}
    result = []
    for port in stage.inputs:
        named = {i: d for i, d in enumerate(port.shape) if isinstance(d, str)}
        result.append({i: dims.setdefault(d, torch.export.Dim(d)) for i, d in named.items()})
    kinds = [p.kind for p in inspect.signature(stage.module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(result)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*result[:first], tuple(result[first:]))
