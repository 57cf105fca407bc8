"""Antialiased cubic resampling, for lattice networks at scales between their native ones.

A lattice network renders at an integer scale; the picture is then brought to the requested size
with Keys' cubic kernel (a = -0.5), stretched by the reduction ratio and normalised, image border
replicated. :mod:`scaleport.imaging.resample` is the same arithmetic in numpy; a test holds both
together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scaleport.grid import Axis
from scaleport.models.positions import Positions


def cubic_kernel(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -0.5, support [-2, 2]."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def tap_count(ratio: float) -> int:
    """Even number of taps that covers the kernel when reducing by ``ratio`` (1 or more)."""
    return 2 * math.ceil(2 * max(1.0, ratio))


def resample(image: Tensor, rows: Axis, cols: Axis) -> Tensor:
    """Bring float[N, C, n_y, n_x] to the pixels of two axes that end at the same borders.

    The axes may be counted in other input units (LR pixels); only their output samples matter.
    """
    axes = []
    for axis, n in ((rows, image.shape[2]), (cols, image.shape[3])):
        axes.append(Axis(n, axis.N, axis.start, axis.stop))
    ratio = max(axis.n / axis.N for axis in axes)
    module = Resample(tap_count(ratio))
    feeds = []
    for axis in axes:
        feeds += [torch.from_numpy(axis.index), torch.from_numpy(axis.offset)]
    ratios = torch.tensor([max(1.0, axis.n / axis.N) for axis in axes])
    result: Tensor = module(image, *(f.to(image.device) for f in feeds), ratios.to(image.device))
    return result


class Resample(nn.Module):
    """The resampling as a graph: shapes depend on input shapes only.

    ``taps`` bounds the reduction ratio it can serve, see :func:`tap_count`.
    """

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.taps = taps

    def forward(self, image: Tensor, *given: Tensor) -> Tensor:
        """Map float[N, C, n_y, n_x] to float[N, C, Ho, Wo].

        Args:
            image: float[N, C, n_y, n_x].
            given: the tensors of :class:`scaleport.models.positions.Positions`, then the ratio
                n/N, float32[2] of at least 1.
        """
        *places, ratio = given
        at = Positions(*places)
        image = self._axis(image, at.row_index, at.row_offset, ratio[0:1], dim=2)
        return self._axis(image, at.col_index, at.col_offset, ratio[1:2], dim=3)

    def _axis(
        self, image: Tensor, index: Tensor, offset: Tensor, ratio: Tensor, dim: int
    ) -> Tensor:
        steps = list(range(1 - self.taps // 2, self.taps // 2 + 1))
        distance = offset[:, None] - torch.tensor(steps, dtype=offset.dtype, device=offset.device)
        weights = cubic_kernel(distance / ratio)
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(image.dtype)
        zero = torch.zeros_like(index)
        last = torch.full_like(index, image.shape[dim] - 1)
        shape = [1, 1, 1, 1]
        shape[dim] = -1
        out = torch.zeros_like(image[:, :, :1, :1])
        for tap, step in enumerate(steps):
            place = torch.minimum(torch.maximum(index + step, zero), last)
            out = out + image.index_select(dim, place) * weights[:, tap].reshape(shape)
        return out
