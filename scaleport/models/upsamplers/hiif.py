"""HIIF: hierarchical encoding of the local coordinate, with linear attention over all queries.

Source: the CVPR 2025 paper on hierarchical encoding based implicit image functions, and the
authors' code where the paper is silent. Two things are settled here that the published float
coordinates leave to rounding noise: a small shift keeps local coordinates off the borders of
their binary digits, and a query between an image's border and its first or last pixel centre
weighs its two, equal neighbours alike.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

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
    Stage,
    Tiling,
    Upsampler,
)
from scaleport.models.positions import GridTensors, bilinear, blocks
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import EncodeStage
from scaleport.models.upsamplers.hiif_deploy import HIIFRender, LiftedLevel
from scaleport.models.upsamplers.hiif_parts import Level, LinearAttention, Lines, axis_lines
from scaleport.tensor import TensorSpec

_QUERIES_PER_CHUNK = 16_384


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
        lift = LiftedLevel(self)
        width = self.project.out_channels
        outputs = (
            TensorSpec("base", "float32", ("N", "H", "W", 4 * width)),
            TensorSpec("moments", "float32", ("N", "H", "W", 2)),
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
