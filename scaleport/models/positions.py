"""Where output pixels lie, as tensors: what a decoder is given of a :class:`scaleport.grid.Grid`.

An axis is an integer index and a fraction in [0, 1), both in LR pixels: no large coordinate is a
float. A :class:`GridTensors` travels as one value through all of a decoder; only at the border of
a graph it is five tensors, the ports of :data:`scaleport.models.base.GRID_PORTS` in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from scaleport.grid import Grid


@dataclass(eq=False)  # not frozen: Lightning Fabric, which moves batches, takes no frozen one
class Positions:
    """Places of output pixels in LR pixels, either of a grid or of queries.

    Of a grid, rows and columns are apart: ``[Ho]`` and ``[Wo]``. Of queries, every tensor is
    ``[N, Q]``.

    Attributes:
        row_index: int32, the row of the LR pixel at or above; -1 above the first centre.
        row_offset: float in [0, 1), how far below it.
        col_index: int32, the column of the LR pixel at or left.
        col_offset: float in [0, 1), how far to the right of it.
    """

    row_index: Tensor
    row_offset: Tensor
    col_index: Tensor
    col_offset: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors in the order of the graphs' ports."""
        return (getattr(self, field.name) for field in fields(self))


@dataclass(eq=False)
class GridTensors(Positions):
    """Places of output pixels, and how much larger the output is.

    Attributes:
        scale: float, (scale_y, scale_x): ``[2]`` of a grid, ``[N, 2]`` of queries.
    """

    scale: Tensor

    @classmethod
    def of(cls, grid: Grid, device: torch.device | str = "cpu") -> GridTensors:
        """The tensors of a grid on a device; offsets and scale are float32."""
        feeds = grid.feeds()
        return cls(*(torch.from_numpy(feeds[field.name]).to(device) for field in fields(cls)))

    def with_offsets(self, dtype: torch.dtype) -> GridTensors:
        """The same places with offsets of another type."""
        return replace(
            self, row_offset=self.row_offset.to(dtype), col_offset=self.col_offset.to(dtype)
        )

    def queries(self, batch: int, rows: slice, cols: slice) -> GridTensors:
        """A block of a grid as queries, row by row, the same for ``batch`` images."""
        height = rows.stop - rows.start
        width = cols.stop - cols.start

        def down(t: Tensor) -> Tensor:
            return t[rows].repeat_interleave(width)[None].expand(batch, -1)

        def across(t: Tensor) -> Tensor:
            return t[cols].repeat(height)[None].expand(batch, -1)

        return GridTensors(
            down(self.row_index),
            down(self.row_offset),
            across(self.col_index),
            across(self.col_offset),
            self.scale[None].expand(batch, -1),
        )


for _value in (Positions, GridTensors):
    torch.export.register_dataclass(_value, serialized_type_name=f"{__name__}.{_value.__name__}")


def blocks(rows: int, cols: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut a grid into blocks of at most ``most`` queries, in an order that is row by row.

    Blocks are bands of whole rows, or pieces of single rows where a row has more queries. The
    queries of all blocks, each row by row, follow each other as those of the grid do.
    """
    band = most // cols
    if band:
        for start in range(0, rows, band):
            yield slice(start, min(rows, start + band)), slice(0, cols)
        return
    for row in range(rows):
        for start in range(0, cols, most):
            yield slice(row, row + 1), slice(start, min(cols, start + most))


def clamp_index(index: Tensor, length: int) -> Tensor:
    """Clamp int32 indices to ``0 .. length - 1`` without leaving int32 (also in Core ML)."""
    last = torch.full_like(index, length - 1)
    return torch.minimum(torch.maximum(index, torch.zeros_like(index)), last)


def around(index: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The two LR pixels around each place of an axis, clamped to the axis: int32, int32."""
    return clamp_index(index, length), clamp_index(index + 1, length)


def nearest_place(index: Tensor, offset: Tensor, length: int) -> Tensor:
    """The LR pixel of an axis that is nearest to each place, the later one of two.

    The published code rounds the float coordinate of a position half-way between two to either.
    """
    return clamp_index(index + (offset >= 0.5).to(index.dtype), length)


def bilinear(image: Tensor, at: Positions) -> Tensor:
    """Interpolate float[N, C, H, W] at a grid: float[N, C, Ho, Wo], borders continued."""
    top, bottom = around(at.row_index, image.shape[2])
    left, right = around(at.col_index, image.shape[3])
    down = at.row_offset.to(image.dtype)[:, None]
    across = at.col_offset.to(image.dtype)
    lines = image.index_select(2, top) * (1 - down) + image.index_select(2, bottom) * down
    return lines.index_select(3, left) * (1 - across) + lines.index_select(3, right) * across
