"""Bilinear interpolation of an LR map at the positions of a grid, separable and in integers."""

from __future__ import annotations

from torch import Tensor

from scaleport.models.upsamplers.query import clamp_index


def neighbours(index: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The two samples around each position of one axis, clamped to the axis: int32, int32."""
    return clamp_index(index, length), clamp_index(index + 1, length)


def bilinear(
    image: Tensor, row_index: Tensor, row_offset: Tensor, col_index: Tensor, col_offset: Tensor
) -> Tensor:
    """Map float[N, C, H, W] to float[N, C, rows, columns]; borders continue their last pixel."""
    top, bottom = neighbours(row_index, image.shape[2])
    left, right = neighbours(col_index, image.shape[3])
    down = row_offset.to(image.dtype)[:, None]
    across = col_offset.to(image.dtype)
    lines = image.index_select(2, top) * (1 - down) + image.index_select(2, bottom) * down
    return lines.index_select(3, left) * (1 - across) + lines.index_select(3, right) * across
