"""Thera: every LR pixel holds a field of waves that cools down by itself to the output's scale.

Source: Becker et al., "Thera: Aliasing-Free Arbitrary-Scale Super-Resolution with Neural Heat
Fields", TMLR 2025 (arXiv 2311.17643).
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import (
    GRID_PORTS,
    SKIP,
    UPSCALED,
    DeployForm,
    Features,
    Normalisation,
    Stage,
    border_dtype,
    image_constant,
)
from scaleport.models.positions import GridTensors, nearest_place
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import encode_stage
from scaleport.models.upsamplers.encoding import half_turns_to_radians
from scaleport.models.upsamplers.query import Decode, QueryUpsampler
from scaleport.tensor import TensorSpec

_WAVES_AT_ONCE = 64
"""Waves that the deploy form sums in one step: none of its maps is then wider than 384 values."""


@UPSAMPLERS.register("thera")
class Thera(QueryUpsampler):
    """Neural heat field: waves of shared directions, with amplitudes and phases per LR pixel.

    The output pixel belongs to the LR pixel nearest to its centre. With ``d`` its place relative to
    that one's centre in LR pixels, ``w`` the shared wave vectors, and amplitudes ``a`` and phases
    ``p`` that a 1x1 convolution makes of the LR pixel's features::

        pixel[rgb] = sum_i a[i, rgb] sin(w_i . d + p_i) exp(-k |w_i|^2 / s^2)

    to which the nearest pixel of the image is added, as it is. The last factor is the solution of
    the heat equation: at smaller scales fast waves fade, which is the blur that an output pixel's
    area needs. ``s`` is the vertical scale, as in the authors' code, also where the horizontal one
    is another. 8385 parameters at 64 channels with 32 waves, 134 145 with 512.

    Args:
        in_channels: encoder width C.
        waves: waves of a field: 32 in Thera-Air, 512 in Plus and Pro.
    """

    queries_per_chunk: ClassVar[int] = 16_384
    reads_skip: ClassVar[bool] = True
    binds_scales: ClassVar[bool] = True
    exact_offsets = True
    """At scales such as 1.5 some pixels lie half-way between two fields, which differ there."""
    rewrites: tuple[str, ...] = (
        "amplitudes and phases at LR size",
        "waves summed along rows before columns",
        "one matrix product per integer scale",
    )

    def __init__(self, in_channels: int, waves: int = 512) -> None:
        super().__init__()
        if waves < 1:
            raise UsageError(f"thera needs at least 1 wave, got {waves}")
        self.waves = waves
        # Amplitudes ``wave * 3 + colour``, then the phases.
        self.field = nn.Conv2d(in_channels, 4 * waves, 1)
        # Published start: directions at random, frequencies up to 16 half turns per LR pixel that
        # cover the disc evenly.
        length = 16 * math.pi * torch.rand(waves).sqrt()
        turn = 2 * math.pi * torch.rand(waves)
        self.components = nn.Parameter(torch.stack([length * turn.cos(), length * turn.sin()]))
        self.diffusivity = nn.Parameter(torch.tensor(math.sqrt(math.log(4)) / (2 * math.pi**2)))

    def cooling(self) -> Tensor:
        """Logarithm of what each wave loses at x1: float[waves]; heat does not flow backwards."""
        return self.components.square().sum(dim=0) * self.diffusivity.clamp(min=0)

    def heat(self, feature: Tensor, image: Tensor, at: GridTensors) -> Tensor:
        """Training form at queries.

        Args:
            feature: float[N, C, H, W].
            image: float[N, 3, H, W], by the network's std but without its mean taken off.
            at: the queries, ``[N, Q]``.

        Returns:
            float[N, Q, 3], normalised pixels.
        """
        dtype, (height, width) = feature.dtype, feature.shape[2:]
        row = nearest_place(at.row_index, at.row_offset, height)
        col = nearest_place(at.col_index, at.col_offset, width)
        place = (row.long() * width + col.long())[:, None]

        def here(x: Tensor) -> Tensor:
            return x.flatten(2).gather(2, place.expand(-1, x.shape[1], -1))

        field = self.field(here(feature)[..., None])[..., 0].transpose(1, 2)
        amplitude = field[..., : 3 * self.waves].unflatten(2, (self.waves, 3))
        down = (at.row_index - row).to(dtype) + at.row_offset
        across = (at.col_index - col).to(dtype) + at.col_offset
        angle = down[..., None] * self.components[0] + across[..., None] * self.components[1]
        decay = torch.exp(-self.cooling() / at.scale[:, :1].to(dtype).square())
        waves = torch.sin(angle + field[..., 3 * self.waves :]) * decay[:, None]
        return torch.matmul(waves[..., None, :], amplitude)[..., 0, :] + here(image).transpose(1, 2)

    def decoder(self, features: Features) -> Decode:
        """What makes pixels of an image's features and of the image itself."""
        return partial(self.heat, features["feature"], features["unshifted"])

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: fields once per LR row that is asked for; an integer scale can be bound."""
        channels = self.field.in_channels
        inputs = (TensorSpec("feature", "float32", ("N", channels, "H", "W")), SKIP)
        return DeployForm(
            encode=encode_stage(encoder, channels, norm, dtype, skip=True),
            render=Stage(
                "render",
                TheraRender(self, norm, dtype),
                (*inputs, *GRID_PORTS),
                (UPSCALED,),
                "angles of the waves, their decay, the sum over groups of waves, the image",
            ),
            bind=partial(self._bind, norm, dtype),
        )

    def _bind(self, norm: Normalisation, dtype: torch.dtype, scale: int) -> Stage:
        inputs = (TensorSpec("feature", "float32", ("N", self.field.in_channels, "H", "W")), SKIP)
        with torch.no_grad():
            module = TheraBound(self, norm, dtype, scale)
        kept = "angles of the waves, the sum over groups of waves, the image"
        return Stage(f"render_x{scale}", module, inputs, (UPSCALED,), kept)


class FieldGroup(nn.Module):
    """Amplitudes and phases of some of the waves, the phases in half turns.

    Rows of the convolution are (colour, wave), then the phases.
    """

    def __init__(self, upsampler: Thera, chosen: range, dtype: torch.dtype) -> None:
        super().__init__()
        source = upsampler.field
        assert source.bias is not None
        self.count = len(chosen)
        rows = [3 * wave + colour for colour in range(3) for wave in chosen]
        rows += [3 * upsampler.waves + wave for wave in chosen]
        self.conv = nn.Conv2d(source.in_channels, len(rows), 1, dtype=source.weight.dtype)
        unit = torch.ones(len(rows), dtype=source.weight.dtype)
        unit[3 * self.count :] = 1 / math.pi
        with torch.no_grad():
            self.conv.weight.copy_(source.weight[rows] * unit[:, None, None, None])
            assert self.conv.bias is not None
            self.conv.bias.copy_(source.bias[rows] * unit)
        self.conv = self.conv.to(dtype)
        self.dtype = dtype

    def forward(self, feature: Tensor) -> Tensor:
        """Map float[N, C, H, W] to float[N, H, W, 4 count]."""
        out: Tensor = self.conv(feature.to(self.dtype)).permute(0, 2, 3, 1)
        return out

    def turned(self, field: Tensor, angle: Tensor) -> Tensor:
        """What the columns of an LR pixel share.

        ``a sin(x + z) = cos(x) a sin(z) + sin(x) a cos(z)``: of these the two factors without
        ``x``, beside each other.

        Args:
            field: float[N, rows, W, 4 count].
            angle: added to the phases, in half turns; broadcasts to float[N, rows, W, count].

        Returns:
            float[N, rows, W, 3, 2 count].
        """
        count = self.count
        phase = half_turns_to_radians(field[..., 3 * count :].to(angle.dtype) + angle)
        amplitude = field[..., : 3 * count]
        amplitude = amplitude.reshape(*field.shape[:3], 3, count)
        parts = [wave.to(self.dtype)[..., None, :] for wave in (phase.sin(), phase.cos())]
        return torch.cat([amplitude * part for part in parts], dim=-1)


class _Fields(nn.Module):
    """All waves of an upsampler in groups, and what brings pixels back to [0, 1]."""

    shift: Tensor

    def __init__(self, upsampler: Thera, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.std = dtype, norm.std
        starts = range(0, upsampler.waves, _WAVES_AT_ONCE)
        self.ranges = [
            range(start, min(start + _WAVES_AT_ONCE, upsampler.waves)) for start in starts
        ]
        self.groups = nn.ModuleList(FieldGroup(upsampler, some, dtype) for some in self.ranges)
        # The mean of the fields, and that which was taken off the image.
        shift = image_constant([2 * value for value in norm.mean], border_dtype(dtype))
        self.register_buffer("shift", shift)


class TheraRender(_Fields):
    """Render any real scale: waves along the rows first, then along the columns."""

    directions: Tensor
    cooling: Tensor

    def __init__(self, upsampler: Thera, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(upsampler, norm, dtype)
        components = upsampler.components.to(border_dtype(dtype))
        self.register_buffer("directions", components / math.pi)
        self.register_buffer("cooling", upsampler.cooling().to(border_dtype(dtype)))

    def forward(self, feature: Tensor, skip: Tensor, *grid: Tensor) -> Tensor:
        """Map float32 features and image at LR size and the grid to float32[N, 3, Ho, Wo]."""
        border = border_dtype(self.dtype)
        at = GridTensors(*grid).with_offsets(border)
        row = nearest_place(at.row_index, at.row_offset, skip.shape[2])
        col = nearest_place(at.col_index, at.col_offset, skip.shape[3])
        down = (at.row_index - row).to(border) + at.row_offset
        across = (at.col_index - col).to(border) + at.col_offset
        factor = at.scale[0:1].to(border)
        decay = torch.exp(-self.cooling / (factor * factor)) * self.std
        along_col = down[:, None] * self.directions[0]
        along_row = half_turns_to_radians(across[:, None] * self.directions[1])
        n, rows, cols = feature.shape[0], row.shape[0], col.shape[0]
        total: Tensor | None = None
        for some, group in zip(self.ranges, self.groups, strict=True):
            assert isinstance(group, FieldGroup)
            part = slice(some.start, some.stop)
            lines = group(feature).index_select(1, row)
            shared = group.turned(lines, along_col[None, :, None, part])
            shared = shared.permute(0, 2, 1, 3, 4).reshape(n, skip.shape[3], rows * 3, -1)
            ahead = along_row[:, part]
            ahead = torch.cat([ahead.cos() * decay[part], ahead.sin() * decay[part]], dim=-1)
            # One column of the output at a time: copies and products are of whole blocks.
            made = torch.matmul(shared.index_select(1, col), ahead.to(self.dtype)[..., None])
            total = made.to(border) if total is None else total + made.to(border)
        assert total is not None
        out = total.reshape(n, cols, rows, 3).permute(0, 3, 2, 1)
        return out + skip.index_select(2, row).index_select(3, col) * self.std + self.shift


class TheraBound(_Fields):
    """Render at one integer scale: every LR pixel's field has the same places in it."""

    def __init__(
        self, upsampler: Thera, norm: Normalisation, dtype: torch.dtype, scale: int
    ) -> None:
        super().__init__(upsampler, norm, dtype)
        self.scale = scale
        components = upsampler.components
        centre = (torch.arange(scale, dtype=components.dtype) + 0.5) / scale - 0.5
        down, across = torch.meshgrid(centre, centre, indexing="ij")
        angle = components[0, :, None] * down.flatten() + components[1, :, None] * across.flatten()
        decay = torch.exp(-upsampler.cooling() / scale**2) * norm.std
        for number, some in enumerate(self.ranges):
            part = slice(some.start, some.stop)
            table = torch.cat([angle[part].cos(), angle[part].sin()])
            table = table * decay[part].repeat(2)[:, None]
            self.register_buffer(f"table{number}", table.to(dtype))

    def forward(self, feature: Tensor, skip: Tensor) -> Tensor:
        """Map float32 features and image at LR size to float32[N, 3, s * H, s * W]."""
        border = border_dtype(self.dtype)
        still = torch.zeros(1, dtype=border, device=feature.device)
        total: Tensor | None = None
        for number, group in enumerate(self.groups):
            assert isinstance(group, FieldGroup)
            shared = group.turned(group(feature), still)
            made = torch.matmul(shared, getattr(self, f"table{number}")).to(border)
            total = made if total is None else total + made
        assert total is not None
        n, height, width = total.shape[:3]
        image = skip * self.std + self.shift
        out = total.permute(0, 3, 4, 1, 2) + image[:, :, None]
        out = out.reshape(n, 3 * self.scale**2, height, width)
        return functional.pixel_shuffle(out, self.scale)
