"""The deploy form of MSIT.

Attention logits are products of an interpolated query with its keys, so they are interpolated
products: of every pixel with the pixels up to ``radius + 1`` away, made once at LR size. What a
query then gathers is one number per head and key instead of a feature vector.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import (
    GRID_PORTS,
    IMAGE,
    SKIP,
    UPSCALED,
    Normalisation,
    Stage,
)
from scaleport.models.layers import widened
from scaleport.models.positions import GridTensors, bilinear, clamp_index
from scaleport.models.stages import EncodeStage, RenderModule
from scaleport.models.upsamplers.msit_parts import (
    Mixing,
    MultiScaleOperator,
    QueryFeatures,
    RefinedConv,
)
from scaleport.tensor import TensorSpec

if TYPE_CHECKING:
    from scaleport.models.upsamplers.msit import MSIT

FLOAT32_PARTS = "indices, position bias, attention logits and softmax, bilinear skip"


def merged(conv: nn.Module) -> nn.Conv2d:
    """The plain convolution that a refined one amounts to; a plain one as it is."""
    if isinstance(conv, nn.Conv2d):
        return conv
    assert isinstance(conv, RefinedConv)
    out_channels, in_channels, size = conv.weight.shape[:3]
    plain = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, dtype=conv.weight.dtype)
    with torch.no_grad():
        plain.weight.copy_(conv.kernel())
        assert plain.bias is not None
        plain.bias.copy_(conv.bias)
    return plain


class DeployedMixing(nn.Module):
    """Mixing with its BatchNorm folded into the convolution before it."""

    def __init__(self, mixing: Mixing) -> None:
        super().__init__()
        norm, self.inner, self.outer = mixing.norm, copy.deepcopy(mixing.inner), mixing.outer
        assert norm.running_var is not None and norm.running_mean is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        with torch.no_grad():
            assert self.inner.bias is not None
            self.inner.weight.copy_(self.inner.weight * factor[:, None, None, None])
            shifted = (self.inner.bias - norm.running_mean) * factor + norm.bias
            self.inner.bias.copy_(shifted)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width, H, W] to the same shape."""
        out: Tensor = self.outer(functional.gelu(self.inner(x)))
        return out


class Branches(nn.Module):
    """Shares of the channels through one plain convolution each, and the mixing."""

    def __init__(self, part: MultiScaleOperator | QueryFeatures) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(merged(branch) for branch in part.branches)
        self.mixing = DeployedMixing(part.mixing)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, width, H, W] to the same shape."""
        parts = torch.chunk(x, len(self.convolutions), dim=1)
        scales = [conv(part) for conv, part in zip(self.convolutions, parts, strict=True)]
        out: Tensor = self.mixing(torch.cat(scales, dim=1))
        return out


def wrapped(x: Tensor) -> Tensor:
    """Pad a map by 1 pixel all around with the pixels of the opposite border."""
    for axis in (2, 3):
        length = x.shape[axis]
        place = torch.arange(length + 2, device=x.device, dtype=torch.int32) + (length - 1)
        x = x.index_select(axis, torch.remainder(place, torch.full_like(place, length)))
    return x


class MSITLift(nn.Module):
    """What MSIT computes at LR size: products of neighbouring pixels per head, and values."""

    mask: Tensor

    def __init__(self, upsampler: MSIT) -> None:
        super().__init__()
        operator, query = upsampler.operator, upsampler.query
        self.heads, self.reach = upsampler.heads, upsampler.radius + 1
        self.expand = upsampler.expand
        self.gate, self.token, self.project = operator.value, operator.token, operator.project
        self.register_buffer("mask", operator.mask)
        self.scales = Branches(operator)
        self.spread = query.spread
        self.shared = Branches(query)
        self.value = merged(upsampler.value)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, C, H, W] to channels-last maps.

        Returns:
            products [N, H, W, (2 radius + 3)^2 heads] with elements (dy, dx, head), and values
            [N, H, W, width].
        """
        x = self.expand(feature)
        shifted = functional.conv2d(wrapped(self.token(x)), self.mask, groups=x.shape[1])
        x = self.project(self.gate(x) * self.scales(shifted))
        shared = widened(self.shared(self.spread(x)))
        n, width, h, w = shared.shape
        depth, side = width // self.heads, 2 * self.reach + 1
        around = functional.pad(shared, (self.reach,) * 4)
        shared = shared * depth**-0.5
        products = []
        for dy in range(side):
            for dx in range(side):
                product = shared * around[:, :, dy : dy + h, dx : dx + w]
                products.append(product.reshape(n, self.heads, depth, h, w).sum(dim=2))
        return torch.cat(products, dim=1).permute(0, 2, 3, 1), self.value(x).permute(0, 2, 3, 1)


def from_nearest(offset: Tensor) -> Tensor:
    """Distance to the nearest pixel's centre, in [-0.5, 0.5), from the fraction of a place."""
    return offset - (offset >= 0.5).to(offset.dtype)


class Decoder(RenderModule):
    """What both render stages share: position bias and the decoder's layers."""

    keys: Tensor
    cell: Tensor
    first_bias: Tensor
    bias_y: Tensor
    bias_x: Tensor
    constant: Tensor

    def __init__(self, upsampler: MSIT, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(norm, dtype)
        self.heads, self.radius, self.width = upsampler.heads, upsampler.radius, upsampler.width
        self.side = 2 * self.radius + 1
        linears = [layer for layer in upsampler.mlp if isinstance(layer, nn.Linear)]
        first, last = linears[0], linears[-1]
        count = self.side**2
        # One matrix float[width, hidden] per key, and the columns of the cell.
        weight = first.weight[:, :-2].reshape(-1, count, self.width).permute(1, 2, 0)
        self.register_buffer("keys", weight.contiguous().to(dtype))
        self.register_buffer("cell", first.weight[:, -2:].t().clone())
        self.register_buffer("first_bias", first.bias.clone())
        final = nn.Linear(last.in_features, 3, dtype=last.weight.dtype)
        with torch.no_grad():
            final.weight.copy_(last.weight * norm.std)
            final.bias.copy_(last.bias * norm.std)
        self.layers = nn.ModuleList(layer.to(dtype) for layer in [*linears[1:-1], final])
        self.position = upsampler.position
        for name, table in zip(("bias_y", "bias_x"), self._tables(), strict=True):
            self.register_buffer(name, table)
        self.register_buffer("constant", upsampler.position.linear.bias.clone())

    def _tables(self) -> list[Tensor]:
        """Per axis the matrix float[2 n, side heads] from (sin, cos) of the fraction's angle.

        Sines and cosines of a difference are linear in those of its parts.
        """
        weight = self.position.linear.weight
        sin_y, sin_x, cos_y, cos_x = weight.double().chunk(4, dim=1)
        turn_cos, turn_sin = self.position.rotation[:, :, None].double()
        tables = []
        for sine, cosine in ((sin_y, cos_y), (sin_x, cos_x)):
            from_sin = sine * turn_cos + cosine * turn_sin
            from_cos = cosine * turn_cos - sine * turn_sin
            both = torch.cat([from_sin, from_cos], dim=2).permute(2, 0, 1)
            tables.append(both.flatten(1).to(weight.dtype))
        return tables

    def bias(self, fraction: Tensor, table: Tensor) -> Tensor:
        """Position bias float32[Q, side, heads] of one axis."""
        angle = self.position.angle(fraction.to(self.border))
        code = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)
        return torch.matmul(code, table).reshape(-1, self.side, self.heads)

    def shift(self, scale: Tensor) -> Tensor:
        """Bias of the first layer with the cell's share, float[hidden]."""
        share = ((2 / scale)[:, None].to(self.border) * self.cell).sum(dim=0)
        return (share + self.first_bias).to(self.dtype)

    def decode(self, x: Tensor) -> Tensor:
        """The decoder after its first product: [..., hidden] to [..., 3]."""
        for layer in self.layers:
            x = layer(functional.gelu(x))
        return x

    def weights(self, logits: Tensor) -> Tensor:
        """Softmax over the keys of logits float32[B, side, Q, side, heads]: [B, Q, keys, heads]."""
        b, q = logits.shape[0], logits.shape[2]
        flat = logits.permute(0, 2, 1, 3, 4).reshape(b, q, self.side**2, self.heads)
        return torch.softmax(flat, dim=2).to(self.dtype)


class MSITRender(Decoder):
    """Decode output pixels at any real scale.

    The decoder's first layer is summed key by key, so that attended values never exist at once.
    It reads values at output size: 3.2 million multiply-adds per pixel. Products with its matrices
    at LR size would save most of them, but a query reads 49 x 8 of those vectors, which costs more
    time than it saves unless queries of one centre are worked on together, see :mod:`.msit_bound`.
    """

    def _corners(
        self, index: Tensor, offset: Tensor, length: int
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Of one axis: where in (pixel, distance) each key's product lies, for both neighbours.

        Returns:
            per neighbour, flat places int32[Q * side] and weights float32[Q]; the nearest pixels.
        """
        nearest = index + (offset >= 0.5).to(torch.int32)
        span = self.side + 2
        steps = torch.arange(self.side, device=index.device, dtype=torch.int32)
        places, weights = [], []
        for step in (0, 1):
            pixel = index + step
            inside = clamp_index(pixel, length)
            weight = offset if step else 1 - offset
            # The query map is zero outside of the image.
            weight = torch.where(inside == pixel, weight, torch.full_like(weight, 0.0))
            away = (inside * span + (nearest - pixel) + 1)[:, None] + steps
            places.append(clamp_index(away.reshape(-1), length * span))
            weights.append(weight.to(self.border))
        return places, weights, nearest

    def forward(self, products: Tensor, value: Tensor, skip: Tensor, *grid: Tensor) -> Tensor:
        """Map float32 maps at LR size and the grid to float32[N, 3, Ho, Wo]."""
        at = GridTensors(*grid)
        n, h, w = value.shape[0], value.shape[1], value.shape[2]
        side, span, heads = self.side, self.side + 2, self.heads
        rows, cols = at.row_index.shape[0], at.col_index.shape[0]
        places_y, weights_y, row = self._corners(at.row_index, at.row_offset, h)
        places_x, weights_x, col = self._corners(at.col_index, at.col_offset, w)
        # Rows of (pixel, dy), then columns of (pixel, dx); never more than 5 dimensions.
        table = products.reshape(n * h, w, span, span * heads).permute(0, 2, 1, 3)
        table = table.reshape(n, h * span, w, span * heads)
        lines = [
            table.index_select(1, place).reshape(n, rows, side, w * span * heads)
            * weight[:, None, None]
            for place, weight in zip(places_y, weights_y, strict=True)
        ]
        line = (lines[0] + lines[1]).reshape(n * rows, side, w * span, heads)
        cells = [
            line.index_select(2, place).reshape(n * rows, side, cols, side * heads)
            * weight[:, None]
            for place, weight in zip(places_x, weights_x, strict=True)
        ]
        bias_y = self.bias(from_nearest(at.row_offset), self.bias_y)
        bias_x = self.bias(from_nearest(at.col_offset), self.bias_x)
        # [N, rows, side (dy), columns, side (dx) heads]
        logits = (cells[0] + cells[1]).reshape(n, rows, side, cols, side * heads)
        down = (bias_y + self.constant).repeat(1, 1, side)
        logits = logits + down[:, :, None, :] + bias_x.reshape(cols, side * heads)
        weights = self.weights(logits.reshape(n * rows, side, cols, side, heads))

        r = self.radius
        padded = functional.pad(value.to(self.dtype), (0, 0, r, r, r, r))
        depth = self.width // heads
        total = self.shift(at.scale)
        for ky in range(side):
            around = padded.index_select(1, row + ky)
            for kx in range(side):
                k = ky * side + kx
                found = around.index_select(2, col + kx).reshape(n * rows, cols, heads, depth)
                found = (found * weights[:, :, k, :, None]).reshape(n * rows, cols, self.width)
                total = total + torch.matmul(found, self.keys[k])
        out = self.decode(total).reshape(n, rows, cols, 3).permute(0, 3, 1, 2)
        low = bilinear(skip, at)
        return out.to(self.border) + low * self.std + self.mean


def encode_stage(
    upsampler: MSIT, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype
) -> Stage:
    """Encoder and everything of MSIT that does not depend on the query."""
    module = EncodeStage(encoder, norm, dtype, MSITLift(upsampler), skip=True)
    return Stage("encode", module, (IMAGE,), feature_ports(upsampler), "products of the attention")


def feature_ports(upsampler: MSIT) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    """What the encode stage gives to render stages."""
    channels = (2 * upsampler.radius + 3) ** 2 * upsampler.heads
    products = TensorSpec("products", "float32", ("N", "H", "W", channels))
    return products, TensorSpec("value", "float32", ("N", "H", "W", upsampler.width)), SKIP


def render_stage(upsampler: MSIT, norm: Normalisation, dtype: torch.dtype) -> Stage:
    """Decoder for any scale."""
    inputs = (*feature_ports(upsampler), *GRID_PORTS)
    module = MSITRender(upsampler, norm, dtype)
    return Stage("render", module, inputs, (UPSCALED,), FLOAT32_PARTS)
