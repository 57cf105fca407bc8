"""Sines and cosines of a number at many octaves, the same on every backend.

Networks that read positions through ``sin(2^i pi x / 10)`` multiply whatever error the argument
has by up to 2^39, far beyond what the sine of any hardware is made for. Here only ``t = x / 10`` is
rounded, once, to float32. Everything after it is exact: a product with a power of two is, and so is
the difference to the nearest whole number of turns, so that every sine is taken of an angle within
half a turn. The published codes compute the same from coordinates that are rounding noise at high
octaves; these are the true values for the float32 ``t``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError

MOST_OCTAVES = 64


class Octaves(nn.Module):
    """``[x, sin(pi x / 10), cos(pi x / 10), sin(2 pi x / 10), cos(2 pi x / 10), ...]``.

    Args:
        count: octaves, 0 .. 64.

    Raises:
        UsageError: if there are more or fewer.
    """

    turns: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        if not 0 <= count <= MOST_OCTAVES:
            raise UsageError(f"octaves must be 0 to {MOST_OCTAVES}, got {count}")
        self.width = 1 + 2 * count
        powers = 2.0 ** torch.arange(-1, count - 1, dtype=torch.float32)
        self.register_buffer("turns", powers, persistent=False)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Map float32[K] to ``dtype``[K, 1 + 2 * count], ``dtype`` being float32 or float64."""
        x = x.to(torch.float32)
        turns = (x * 0.1)[:, None] * self.turns.to(torch.float32)
        angle = (turns - torch.round(turns)).to(dtype) * (2 * math.pi)
        code = torch.stack([torch.sin(angle), torch.cos(angle)], dim=2).flatten(1)
        return torch.cat([x[:, None].to(dtype), code], dim=1)
