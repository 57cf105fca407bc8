"""Modules of HIIF: digits of the local coordinate, levels, linear attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.layers import LayerNorm
from scaleport.models.positions import around

# The largest float32 below 1: the last cell of every level.
_BELOW_ONE = 1 - 2.0**-24


@dataclass(frozen=True)
class Lines:
    """What an axis of queries needs: neighbours int32[Q], their weights, digits float32[Q]."""

    index: tuple[Tensor, Tensor]
    weight: tuple[Tensor, Tensor]
    digits: tuple[Tensor, ...]

    def part(self, chosen: slice) -> Lines:
        """A range of the queries."""
        return Lines(
            (self.index[0][chosen], self.index[1][chosen]),
            (self.weight[0][chosen], self.weight[1][chosen]),
            tuple(digit[chosen] for digit in self.digits),
        )


def axis_lines(index: Tensor, offset: Tensor, length: int, levels: int, shift: float) -> Lines:
    """Neighbours, weights and digits of one axis, from integer index and fraction.

    Args:
        index: int32[Q], ``floor(u)`` of each query.
        offset: float32[Q], its fraction.
        length: LR length of the axis.
        levels: number of binary digits.
        shift: added to the local coordinate before it is split into digits.
    """
    low, high = around(index, length)
    # Weights are the distances to the opposite neighbour. Where clamping joins both, the
    # distances are equal, and the concatenated features share the weight.
    upper = torch.where(low == high, torch.full_like(offset, 0.5), offset)
    # Before the first centre the published local coordinate is 1 / n + distance.
    distance = 1 / torch.full_like(index, length).to(offset.dtype) + (1 - offset)
    local = torch.where(index < 0, distance, offset)
    cells = torch.floor(torch.clamp(local + shift, max=_BELOW_ONE) * 2.0**levels)
    # The j-th binary digit; quotients by powers of two and their floors are exact.
    tops = [torch.floor(cells * 0.5 ** (levels - j)) for j in range(levels + 1)]
    digits = tuple(tops[j + 1] - 2 * tops[j] for j in range(levels))
    return Lines((low, high), (1 - upper, upper), digits)


class Level(nn.Module):
    """LayerNorm, Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, Q, width] to float[N, Q, out]."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return out


class LinearAttention(nn.Module):
    """``x + fc2(gelu(fc1(x + q (k^T v / Q))))`` over all Q queries of one call.

    The rows of ``qkv`` are (head, q | k | v, width / heads).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_k = LayerNorm(width // heads)
        self.norm_v = LayerNorm(width // heads)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Map the queries, in parts float[N, Q_i, width], to the same shapes."""
        total: Tensor | None = None
        queries = []
        for x in parts:
            n, count = x.shape[:2]
            qkv = self.qkv(x).reshape(n, count, self.heads, -1).transpose(1, 2)
            q, k, v = qkv.chunk(3, dim=-1)
            product = self.norm_k(k).transpose(2, 3) @ self.norm_v(v)
            total = product if total is None else total + product
            queries.append(q)
        assert total is not None
        mean = total / sum(x.shape[1] for x in parts)
        out = []
        for x, q in zip(parts, queries, strict=True):
            attended = (q @ mean).transpose(1, 2).reshape(x.shape) + x
            out.append(self.fc2(functional.gelu(self.fc1(attended))) + x)
        return out
