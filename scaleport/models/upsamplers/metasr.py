"""MetaSR: a small network predicts a filter of its own for every output pixel.

Source: arXiv 1903.00875, in the form in which it is the baseline of arXiv 2012.09161.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import (
    GRID_PORTS,
    UPSCALED,
    DeployForm,
    Normalisation,
    Stage,
    border_dtype,
    image_constant,
)
from scaleport.models.positions import GridTensors, clamp_index
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import bound_stage, encode_stage
from scaleport.models.upsamplers.query import PointUpsampler, unfolded
from scaleport.tensor import TensorSpec

_TIE = 2.0**-21
"""LR pixels within which a corner counts as lying on the border between two LR pixels.

More than what rounding to float32 moves it by, less than the distance of any other corner from a
border up to 2 million output pixels per axis. The published tolerance is 5e-7 of the axis.
"""


def corner(offset: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Where the top or left corner of an output pixel lies, along one axis.

    The corner of output pixel ``a`` lies at ``a / s`` LR pixels from the corner of the image, and
    its centre ``1 / (2 s)`` further on. Two comparisons make a whole number, so that no index is
    ever computed in floats; they reach down to scale 1/3.

    Args:
        offset: fraction of the pixel's centre, as in :mod:`scaleport.grid`.
        scale: scale of this axis, broadcast against ``offset``.

    Returns:
        How many LR pixels the one that owns the corner lies beyond the index of the centre (int32:
        -1, 0 or 1), and how far the corner lies inside it, in [0, 1).
    """
    place = offset + (0.5 - 0.5 / scale)
    beyond, before = place >= 1 - _TIE, place < -_TIE
    step = beyond.to(torch.int32) - before.to(torch.int32)
    inside = place - beyond.to(place.dtype) + before.to(place.dtype)
    return step, inside.clamp(min=0)


@UPSAMPLERS.register("metasr")
class MetaSR(PointUpsampler):
    """Meta-upscale: per output pixel a bias-free 3x3 filter from C to 3 channels.

    The output pixel belongs to the LR pixel in which its top left corner lies; with ``rel`` the
    place of that corner inside it, in LR pixels::

        filter[9 C, 3] = W2 relu(W1 (rel_y, rel_x, 1 / scale_y) + b1) + b2
        pixel = surroundings[9 C] @ filter

    Parameters: 445 120 at C = 64. Scales below 1/3 are not supported.

    Args:
        in_channels: encoder width C.
        hidden: width of the hidden layer.
    """

    binds_scales = True
    queries_per_chunk = 16_384  # each carries 27 C filter weights
    rewrites: tuple[str, ...] = (
        "features filtered at LR size",
        "positions as tables per axis",
        "one convolution per integer scale",
    )

    def __init__(self, in_channels: int, hidden: int = 256) -> None:
        super().__init__()
        if hidden < 1:
            raise UsageError(f"a hidden layer needs a width of at least 1, got {hidden}")
        self.in_channels = in_channels
        self.mlp = nn.Sequential(
            nn.Linear(self.inputs, hidden), nn.ReLU(), nn.Linear(hidden, 27 * in_channels)
        )

    @property
    def inputs(self) -> int:
        """Number of inputs of the filter network."""
        return 3

    def position(
        self, row_offset: Tensor, col_offset: Tensor, scale_y: Tensor, scale_x: Tensor
    ) -> Tensor:
        """Inputs of the filter network: offsets float[..., Q] to float[..., Q, inputs]."""
        inside_y, inside_x = corner(row_offset, scale_y)[1], corner(col_offset, scale_x)[1]
        return torch.stack([inside_y, inside_x, (1 / scale_y).expand_as(inside_y)], dim=-1)

    def points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """Training form at queries, see :meth:`PointUpsampler.points`."""
        _, c, h, w = feature.shape
        scale_y, scale_x = at.scale.to(at.row_offset.dtype).unsqueeze(-1).unbind(dim=1)
        row = clamp_index(at.row_index + corner(at.row_offset, scale_y)[0], h)
        col = clamp_index(at.col_index + corner(at.col_offset, scale_x)[0], w)
        place = (row.long() * w + col.long())[..., None].expand(-1, -1, 9 * c)
        patch = unfolded(feature).gather(1, place)
        inputs = self.position(at.row_offset, at.col_offset, scale_y, scale_x)
        filters = self.mlp(inputs.to(feature.dtype)).reshape(*row.shape, 9 * c, 3)
        return torch.matmul(patch[..., None, :], filters).squeeze(-2)

    def filters(self, scale: int) -> Tensor:
        """All filters of an integer scale, as a convolution kernel float[3 s^2, C, 3, 3].

        Output channel ``rgb * s^2 + u * s + v`` makes sub-pixel (u, v), whose corner lies at
        (u / s, v / s): there are no others, so that a pixel shuffle completes the network.
        """
        weight = self.mlp[0].weight
        assert isinstance(weight, Tensor)
        # Fractions of the centres of one pixel's sub-pixels; those left of its centre are counted
        # from the pixel before.
        centre = (torch.arange(scale, dtype=weight.dtype) + 0.5) / scale - 0.5
        offset = (centre - centre.floor()).to(weight.device)
        factor = torch.full_like(offset[:1], float(scale))
        down, across = torch.meshgrid(offset, offset, indexing="ij")
        inputs = self.position(down, across, factor, factor)
        kernel: Tensor = self.mlp(inputs).reshape(scale, scale, self.in_channels, 3, 3, 3)
        return kernel.permute(5, 0, 1, 2, 3, 4).reshape(-1, self.in_channels, 3, 3)

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: the filter network contracted with the features, before any gather.

        An integer scale can be bound: one bias-free convolution and a pixel shuffle.
        """
        feature = TensorSpec("feature", "float32", ("N", self.in_channels, "H", "W"))
        return DeployForm(
            encode=encode_stage(encoder, self.in_channels, norm, dtype),
            render=Stage(
                "render",
                self.renderer(norm, dtype),
                (feature, *GRID_PORTS),
                (UPSCALED,),
                "corner positions, their tables, the sum over the hidden layer",
            ),
            bind=partial(self._bind, norm, dtype),
        )

    def renderer(self, norm: Normalisation, dtype: torch.dtype) -> MetaRender:
        """The module of the general render stage."""
        return MetaRender(self, norm, dtype)

    def _bind(self, norm: Normalisation, dtype: torch.dtype, scale: int) -> Stage:
        with torch.no_grad():
            return bound_stage(scale, self.filters(scale), None, norm, dtype)


class MetaRender(nn.Module):
    """Render any real scale.

    The filter network's last layer is linear and so is filtering, so the order of both can be
    changed: for the hidden vector ``h`` of an output pixel ::

        pixel[rgb] = sum_k h[k] * (W2[:, rgb, k] . surroundings) + b2[:, rgb] . surroundings

    The products with the surroundings do not depend on the output pixel: they are a 3x3
    convolution to 3 (hidden + 1) channels at LR size. ``h`` does not depend on the image: it is
    the sum of one table per output row and one per output column.

    Multiply-adds per LR pixel at C = 64: 444 096, and 1024 per output pixel, instead of 444 864
    per output pixel.
    """

    def __init__(self, upsampler: MetaSR, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        first, last = upsampler.mlp[0], upsampler.mlp[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        c, hidden = upsampler.in_channels, first.out_features
        self.hidden = hidden
        self.register_buffer("position", first.weight.t().contiguous().clone())
        self.register_buffer("bias", first.bias.clone())
        self.conv = nn.Conv2d(c, 3 * hidden + 3, 3, padding=1, dtype=last.weight.dtype)
        # Rows of the last layer are (c, ky, kx, rgb).
        weight = last.weight.reshape(9 * c, 3, hidden).permute(1, 2, 0).reshape(-1, c, 3, 3)
        plain = last.bias.reshape(9 * c, 3).t().reshape(3, c, 3, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.cat([weight, plain]) * norm.std)
            assert self.conv.bias is not None
            self.conv.bias.zero_()
            self.conv.bias[3 * hidden :] = image_constant(norm.mean, last.weight.dtype).flatten()
        self.conv = self.conv.to(dtype)
        self.dtype = dtype

    position: Tensor
    bias: Tensor

    def table(
        self, axis: int, offset: Tensor, step: Tensor, inside: Tensor, scale: Tensor
    ) -> Tensor:
        """What one axis adds to the hidden layer: float[length, hidden], without ReLU."""
        del offset, step
        out = inside[:, None] * self.position[axis]
        return out if axis else out + (1 / scale) * self.position[2] + self.bias

    def forward(self, feature: Tensor, *grid: Tensor) -> Tensor:
        """Map float32[N, C, H, W] and the grid to float32[N, 3, Ho, Wo]."""
        at = GridTensors(*grid)
        border = border_dtype(self.dtype)
        base: Tensor = self.conv(feature.to(self.dtype)).permute(0, 2, 3, 1).contiguous()
        h, w = base.shape[1], base.shape[2]
        places, tables = [], []
        sides = ((at.row_index, at.row_offset, h), (at.col_index, at.col_offset, w))
        for axis, (index, offset, length) in enumerate(sides):
            wide, factor = offset.to(border), at.scale[axis : axis + 1].to(border)
            step, inside = corner(wide, factor)
            places.append(clamp_index(index + step, length))
            tables.append(self.table(axis, wide, step, inside, factor))
        hidden = functional.relu(tables[0][:, None, :] + tables[1][None, :, :]).to(self.dtype)
        lines = base.index_select(1, places[0])
        colours = []
        for rgb in range(3):
            part = lines[..., rgb * self.hidden : (rgb + 1) * self.hidden]
            product = part.index_select(2, places[1]) * hidden
            colours.append(product.to(border).sum(dim=-1))
        plain = lines[..., 3 * self.hidden :].index_select(2, places[1])
        return torch.stack(colours, dim=1) + plain.permute(0, 3, 1, 2).to(border)
