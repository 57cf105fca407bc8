"""HIIF: hierarchical encoding of the local coordinate, with linear attention over all queries.

Source: the CVPR 2025 paper on hierarchical encoding based implicit image functions, and the
authors' code where the paper is silent. Two things are settled here that the published float
coordinates leave to rounding noise: a small shift keeps local coordinates off the borders of
their binary digits, and a query between an image's border and its first or last pixel centre
weighs its two, equal neighbours alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    GRID_PORTS,
    IMAGE,
    SKIP,
    UPSCALED,
    Constants,
    DeployForm,
    Features,
    Normalisation,
    Port,
    Stage,
    Tiling,
    Upsampler,
)
from scaleport.models.layers import LayerNorm
from scaleport.models.positions import GridTensors, around, bilinear, blocks
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import EncodeStage

_QUERIES_PER_CHUNK = 16_384
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


@UPSAMPLERS.register("hiif")
class HIIF(Upsampler):
    """Hierarchical implicit image function; 1 735 071 parameters at 64 channels.

    Per query, four weighted neighbours of a 3x3 convolution's result are concatenated with the
    cell (2 / s_y, 2 / s_x) and the first binary digit of the local coordinate per axis; each
    further level adds the next digit. Attention units follow the first level. The bilinear LR
    image is added to the result.

    Args:
        in_channels: encoder width C.
        width: width of everything.
        levels: digits of the local coordinate, and layers.
        heads: heads of the attention units.
        attentions: number of attention units.
        digit_shift: added to the local coordinate, in LR pixels, so that the dyadic phases of
            integer scales lie inside a cell instead of on its border.
    """

    family: ClassVar[Literal["lattice", "query"]] = "query"
    reads_skip: ClassVar[bool] = True
    tiling = Tiling("not-allowed", "linear attention averages over all pixels of one call")
    rewrites: tuple[str, ...] = (
        "first level's features at LR size",
        "LayerNorm in the linear layers",
        "attention as one matrix per head and image",
        "digits as tables per axis",
    )

    def __init__(
        self,
        in_channels: int,
        width: int = 256,
        levels: int = 6,
        heads: int = 16,
        attentions: int = 2,
        digit_shift: float = 1e-4,
    ) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise UsageError(f"hiif needs a width divisible by heads, got {width} and {heads}")
        if not 2 <= levels <= 16 or attentions < 0:
            raise UsageError("hiif needs 2 to 16 levels and no negative number of attentions")
        if not 0 <= digit_shift < 0.5**levels:
            raise UsageError("hiif needs a digit_shift from 0 to below the smallest cell")
        self.digit_shift = digit_shift
        self.project = nn.Conv2d(in_channels, width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                width + 2 if j else 4 * width + 4,
                width,
                3 if j == levels - 1 else width,
            )
            for j in range(levels)
        )
        self.attention = nn.ModuleList(LinearAttention(width, heads) for _ in range(attentions))

    def parts(self) -> tuple[list[Level], list[LinearAttention]]:
        """The levels and the attention units."""
        levels = [module for module in self.levels if isinstance(module, Level)]
        return levels, [unit for unit in self.attention if isinstance(unit, LinearAttention)]

    def lines(self, index: Tensor, offset: Tensor, length: int) -> Lines:
        """:func:`axis_lines` with this network's options."""
        return axis_lines(index, offset, length, len(self.levels), self.digit_shift)

    def _first(self, feature: Tensor, rows: Lines, cols: Lines, cell: Tensor) -> Tensor:
        """Input of the first level without digits: float[N, Q, 4 width + 2]."""
        n, shape = feature.shape[0], (len(rows.index[0]), len(cols.index[0]))
        found = []
        for row, weight_y in zip(rows.index, rows.weight, strict=True):
            line = feature.index_select(2, row) * weight_y.to(feature.dtype)[:, None]
            for col, weight_x in zip(cols.index, cols.weight, strict=True):
                found.append(line.index_select(3, col) * weight_x.to(feature.dtype))
        cells = cell.to(feature.dtype)[None, :, None, None].expand(n, 2, *shape)
        return torch.cat([*found, cells], dim=1).flatten(2).transpose(1, 2)

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns].

        Levels run block by block; the attention's averages are over all of them.
        """
        del constants
        feature, skip = self.project(features["feature"]), features["skip"]
        n, _, height, width = feature.shape
        at = GridTensors.of(grid, feature.device)
        rows = self.lines(at.row_index, at.row_offset, height)
        cols = self.lines(at.col_index, at.col_offset, width)
        cut = [(rows.part(y), cols.part(x)) for y, x in blocks(*grid.shape, _QUERIES_PER_CHUNK)]

        def with_digits(x: Tensor, block: tuple[Lines, Lines], level: int) -> Tensor:
            down, across = (lines.digits[level] for lines in block)
            places = down.repeat_interleave(len(across)), across.repeat(len(down))
            digits = torch.stack(places, dim=-1).to(x.dtype)
            return torch.cat([x, digits[None].expand(n, -1, -1)], dim=-1)

        parts = [self._first(feature, *block, 2 / at.scale) for block in cut]
        parts = [self.levels[0](with_digits(x, b, 0)) for x, b in zip(parts, cut, strict=True)]
        for unit in self.attention:
            parts = unit(parts)
        for j, level in enumerate(self.levels[1:], 1):
            parts = [level(with_digits(x, b, j)) for x, b in zip(parts, cut, strict=True)]
        out = torch.cat(parts, dim=1).transpose(1, 2).reshape(n, 3, *grid.shape)
        return out + bilinear(skip, at)

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: the first LayerNorm and Linear at LR size, attention as one matrix."""
        from scaleport.models.upsamplers.hiif_deploy import HIIFRender, LiftedLevel

        lift = LiftedLevel(self)
        width = self.project.out_channels
        outputs = (
            Port("base", ("N", "H", "W", 4 * width)),
            Port("moments", ("N", "H", "W", 2)),
            SKIP,
        )
        encode = EncodeStage(encoder, norm, dtype, lift, skip=True)
        return DeployForm(
            encode=Stage("encode", encode, (IMAGE,), outputs, "moments of the first level"),
            render=Stage(
                "render",
                HIIFRender(self, norm, dtype),
                (*outputs, *GRID_PORTS),
                (UPSCALED,),
                "neighbour indices, weights and digits, moments, attention averages, bilinear skip",
            ),
        )


@UPSAMPLERS.register("hiif-light")
class HIIFLight(HIIF):
    """HIIF with other defaults: width 64, 4 levels, one attention unit of 8 heads.

    A light head for training encoders at continuous scales; its size is our choice, as the paper
    that uses one (arXiv 2503.13740) gives none in the parts we know. 100 919 parameters at 64
    channels.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        levels: int = 4,
        heads: int = 8,
        attentions: int = 1,
        digit_shift: float = 1e-4,
    ) -> None:
        super().__init__(in_channels, width, levels, heads, attentions, digit_shift)
