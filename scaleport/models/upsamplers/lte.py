"""LTE: every output pixel decoded from waves whose frequencies each LR pixel chooses.

Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022
(arXiv 2111.08918), with the clip of the cell that the authors use beyond their training scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import ClassVar

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
    border_dtype,
)
from scaleport.models.layers import widened
from scaleport.models.positions import GridTensors, bilinear, clamp_index
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import EncodeStage, RenderModule
from scaleport.models.upsamplers.encoding import half_turns_to_radians
from scaleport.models.upsamplers.ensemble import neighbours
from scaleport.models.upsamplers.query import Decode, QueryUpsampler
from scaleport.tensor import TensorSpec


@UPSAMPLERS.register("lte")
class LTE(QueryUpsampler):
    """Local texture estimator: coefficients, frequencies and a phase of the cell, then an MLP.

    With ``F`` one pair of frequencies of an LR pixel, ``d`` the query's place relative to it (one
    LR pixel is 2 units) and ``p`` a linear function of the cell, the MLP reads
    ``coefficient * [cos(pi (F . d + p)), sin(pi (F . d + p))]``; its answers for the four nearest
    LR pixels are blended as LIIF's, and the bilinear LR image is added. 493 827 parameters at 64
    channels with 3 hidden layers of 256.

    Args:
        in_channels: encoder width C.
        width: coefficients, twice the number of waves.
        hidden: widths of the hidden layers.
        scale_max: scale beyond which the cell no longer shrinks, the largest one trained on; 0:
            never.
    """

    queries_per_chunk: ClassVar[int] = 32_768
    reads_skip: ClassVar[bool] = True
    rewrites: tuple[str, ...] = ("waves summed along rows before columns",)

    def __init__(
        self,
        in_channels: int,
        width: int = 256,
        hidden: tuple[int, ...] | list[int] = (256, 256, 256),
        scale_max: float = 4.0,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2 or not hidden or any(size < 1 for size in hidden):
            raise UsageError("lte needs an even width and at least one hidden layer")
        if scale_max < 0:
            raise UsageError("lte needs a scale_max of at least 0")
        self.scale_max = float(scale_max)
        self.coefficient = nn.Conv2d(in_channels, width, 3, padding=1)
        self.frequency = nn.Conv2d(in_channels, width, 3, padding=1)
        self.phase = nn.Linear(2, width // 2, bias=False)
        sizes = (width, *hidden)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self.mlp = nn.Sequential(*layers, nn.Linear(sizes[-1], 3))

    def waves(self, maps: tuple[Tensor, Tensor], at: GridTensors) -> Tensor:
        """Training form at queries, without the bilinear image.

        Args:
            maps: coefficients and frequencies, float[N, width, H, W] each.
            at: the queries, ``[N, Q]``.

        Returns:
            float[N, Q, 3], normalised pixels.
        """
        coefficient, frequency = (m.flatten(2).transpose(1, 2) for m in maps)
        size, dtype = (maps[0].shape[2], maps[0].shape[3]), maps[0].dtype
        phase = self.phase(clipped_cell(at.scale, self.scale_max).to(dtype))[:, None]
        total: Tensor | None = None
        for near in neighbours(size, at):
            place = (near.row.long() * size[1] + near.col.long())[..., None]
            place = place.expand(-1, -1, coefficient.shape[2])
            chosen = frequency.gather(1, place)
            rows, cols = chosen[..., 0::2], chosen[..., 1::2]
            rel_y = 2 * (near.row_distance.to(dtype) + at.row_offset)
            rel_x = 2 * (near.col_distance.to(dtype) + at.col_offset)
            turned = rows * rel_y[..., None] + cols * rel_x[..., None] + phase
            angle = half_turns_to_radians(turned)
            waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
            term = self.mlp(coefficient.gather(1, place) * waves)
            term = term * near.weight.to(dtype)[..., None]
            total = term if total is None else total + term
        assert total is not None
        return total

    def decoder(self, features: Features) -> Decode:
        """Coefficients and frequencies of an image, and what makes pixels of them."""
        feature = features["feature"]
        return partial(self.waves, (self.coefficient(feature), self.frequency(feature)))

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns]."""
        skip = features["skip"]
        out = super().render(features, grid, constants)
        return out + bilinear(skip, GridTensors.of(grid, skip.device))

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: maps at LR size, waves summed along rows before columns are gathered."""
        lift = LTEMaps(self)
        width = self.coefficient.out_channels
        outputs = (
            TensorSpec("coefficient", "float32", ("N", "H", "W", width)),
            TensorSpec("frequency", "float32", ("N", "H", "W", width)),
            SKIP,
        )
        encode = EncodeStage(encoder, norm, dtype, lift, skip=True)
        return DeployForm(
            encode=Stage("encode", encode, (IMAGE,), outputs),
            render=Stage(
                "render",
                LTERender(self, norm, dtype),
                (*outputs, *GRID_PORTS),
                (UPSCALED,),
                "neighbour indices, angles of the waves, ensemble weights, bilinear skip",
            ),
        )


def clipped_cell(scale: Tensor, scale_max: float) -> Tensor:
    """Cell (2 / s_y, 2 / s_x) of a scale, which no longer shrinks beyond ``scale_max``."""
    if scale_max:
        scale = torch.clamp(scale, max=scale_max)
    return 2 / scale


class LTEMaps(nn.Module):
    """Coefficients and frequencies at LR size; of the latter those of rows, then of columns."""

    def __init__(self, upsampler: LTE) -> None:
        super().__init__()
        self.coefficient = upsampler.coefficient
        theirs = upsampler.frequency
        assert theirs.bias is not None
        self.frequency = nn.Conv2d(
            theirs.in_channels, theirs.out_channels, 3, padding=1, dtype=theirs.weight.dtype
        )
        with torch.no_grad():
            for ours, value in (
                (self.frequency.weight, theirs.weight),
                (self.frequency.bias, theirs.bias),
            ):
                assert ours is not None
                ours.copy_(torch.cat([value[0::2], value[1::2]]))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, C, H, W] to two maps [N, H, W, width]."""
        return (
            self.coefficient(feature).permute(0, 2, 3, 1),
            self.frequency(feature).permute(0, 2, 3, 1),
        )


class LTERender(RenderModule):
    """Decode output pixels from coefficients and frequencies."""

    phase: Tensor

    def __init__(self, upsampler: LTE, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(norm, dtype)
        self.scale_max = upsampler.scale_max
        self.waves = upsampler.phase.out_features
        self.register_buffer("phase", upsampler.phase.weight.t().clone())
        *layers, end = upsampler.mlp
        assert isinstance(end, nn.Linear)
        last = nn.Linear(end.in_features, 3, dtype=end.weight.dtype)
        with torch.no_grad():
            last.weight.copy_(end.weight * norm.std)
            last.bias.copy_(end.bias * norm.std)
        self.mlp = nn.Sequential(*layers, last).to(dtype)

    def _sides(
        self, index: Tensor, offset: Tensor, length: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Neighbour, distance from it and weight, of both neighbours of one axis."""
        offset = offset.to(border_dtype(self.dtype))
        for step in (0, 1):
            place = clamp_index(index + step, length)
            rel = 2 * ((index - place).to(offset.dtype) + offset)
            yield place, rel, offset if step else 1 - offset

    def forward(
        self,
        coefficient: Tensor,
        frequency: Tensor,
        skip: Tensor,
        *grid: Tensor,
    ) -> Tensor:
        """Map float32 maps at LR size and the grid to float32[N, 3, Ho, Wo]."""
        at = GridTensors(*grid)
        h, w = skip.shape[2], skip.shape[3]
        frequency = frequency.to(border_dtype(self.dtype))
        cell = clipped_cell(at.scale, self.scale_max).to(frequency.dtype)
        phase = cell[0:1] * widened(self.phase)[0] + cell[1:2] * widened(self.phase)[1]
        coefficient = coefficient.to(self.dtype)
        total: Tensor | None = None
        for row, rel_y, weight_y in self._sides(at.row_index, at.row_offset, h):
            lines = coefficient.index_select(1, row)
            turned = frequency.index_select(1, row)
            along, across = turned[..., : self.waves], turned[..., self.waves :]
            along = along * rel_y[None, :, None, None] + phase
            for col, rel_x, weight_x in self._sides(at.col_index, at.col_offset, w):
                angle = along.index_select(2, col)
                angle = angle + across.index_select(2, col) * rel_x[None, None, :, None]
                angle = half_turns_to_radians(angle)
                waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.dtype)
                x = self.mlp(lines.index_select(2, col) * waves).to(border_dtype(self.dtype))
                x = x * (weight_y[:, None] * weight_x)[None, :, :, None]
                total = x if total is None else total + x
        assert total is not None
        low = bilinear(skip, at)
        return total.permute(0, 3, 1, 2) + low * self.std + self.mean
