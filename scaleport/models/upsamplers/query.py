"""What query upsamplers share: a training form that is defined point by point."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from scaleport.grid import Grid
from scaleport.models.base import Constants, Features, Upsampler, grid_tensors


def clamp_index(index: Tensor, length: int) -> Tensor:
    """Clamp int32 indices to ``0 .. length - 1`` without leaving int32 (also in Core ML)."""
    last = torch.full_like(index, length - 1)
    return torch.minimum(torch.maximum(index, torch.zeros_like(index)), last)


def unfolded(feature: Tensor) -> Tensor:
    """The zero-padded 3x3 surroundings of every pixel, as float[N, H * W, 9 C].

    Element ``c * 9 + ky * 3 + kx``; the pixel of row ``i``, column ``j`` is row ``i * W + j``.
    """
    return functional.unfold(feature, 3, padding=1).transpose(1, 2)


class QueryUpsampler(Upsampler):
    """An upsampler that computes every output pixel by itself, from :meth:`points`."""

    family: ClassVar[Literal["lattice", "query"]] = "query"
    queries_per_chunk: ClassVar[int] = 65_536
    """Most points that :meth:`render` works on at once."""

    @abc.abstractmethod
    def points(
        self,
        feature: Tensor,
        row_index: Tensor,
        row_offset: Tensor,
        col_index: Tensor,
        col_offset: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Training form at arbitrary positions.

        Args:
            feature: float[N, C, H, W].
            row_index: int[N, Q], integer part of each query's row.
            row_offset: float[N, Q], its fraction.
            col_index: int[N, Q].
            col_offset: float[N, Q].
            scale: float[N, 2], (scale_y, scale_x).

        Returns:
            float[N, Q, 3], normalised pixels.
        """

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns]."""
        del constants
        feature = features["feature"]
        n = feature.shape[0]
        row_index, row_offset, col_index, col_offset, scale = grid_tensors(grid, feature.device)
        rows, cols = grid.shape
        scales = scale[None].expand(n, -1)
        band = max(1, self.queries_per_chunk // cols)
        bands = []
        for start in range(0, rows, band):
            stop = min(rows, start + band)

            def over_rows(t: Tensor, start: int = start, stop: int = stop) -> Tensor:
                return t[start:stop].repeat_interleave(cols)[None].expand(n, -1)

            def over_cols(t: Tensor, height: int = stop - start) -> Tensor:
                return t.repeat(height)[None].expand(n, -1)

            out = self.points(
                feature,
                over_rows(row_index),
                over_rows(row_offset.to(feature.dtype)),
                over_cols(col_index),
                over_cols(col_offset.to(feature.dtype)),
                scales,
            )
            bands.append(out.transpose(1, 2).reshape(n, 3, stop - start, cols))
        return torch.cat(bands, dim=2)
