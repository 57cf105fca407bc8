"""The deploy form of HIIF: the same function with less work per output pixel.

A Linear behind a LayerNorm is rewritten with rows of zero sum: the mean then drops out of the
product, only the deviation remains to be divided by. Features, cell and digits enter that product
as sums, so the features' share is made at LR size and interpolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import Normalisation
from scaleport.models.layers import LayerNorm, widened
from scaleport.models.positions import GridTensors, bilinear
from scaleport.models.stages import RenderModule
from scaleport.models.upsamplers.hiif_parts import Lines, axis_lines

if TYPE_CHECKING:
    from scaleport.models.upsamplers.hiif import HIIF
    from scaleport.models.upsamplers.hiif_parts import Level, LinearAttention


def centred(norm: LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias such that ``linear(norm(x)) == (x @ weight.T) / deviation(x) + bias``.

    ``deviation`` is ``sqrt(var + eps)``. The rows of the weight have zero sum.
    """
    weight = linear.weight * norm.weight
    assert linear.bias is not None
    bias = linear.bias + linear.weight @ norm.bias
    return weight - weight.mean(dim=1, keepdim=True), bias


class LiftedLevel(nn.Module):
    """The features' share of the first level at LR size, and what its LayerNorm needs of them."""

    def __init__(self, upsampler: HIIF) -> None:
        super().__init__()
        self.project = upsampler.project
        width = upsampler.project.out_channels
        first = upsampler.parts()[0][0]
        weight, _ = centred(first.norm, first.fc1)
        self.mix = nn.Conv2d(width, 4 * width, 1, bias=False, dtype=weight.dtype)
        # Columns are (neighbour, channel); one map of `width` channels per neighbour.
        shares = weight[:, : 4 * width].reshape(width, 4, width).permute(1, 0, 2)
        with torch.no_grad():
            self.mix.weight.copy_(shares.reshape(4 * width, width, 1, 1))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, C, H, W] to the shares [N, H, W, 4 width] and moments [N, H, W, 2].

        The moments are the mean over channels, and the sum of squares about it.
        """
        x = self.project(feature)
        wide = widened(x)
        mean = wide.mean(dim=1, keepdim=True)
        squares = ((wide - mean) ** 2).sum(dim=1, keepdim=True)
        moments = torch.cat([mean, squares], dim=1)
        return self.mix(x).permute(0, 2, 3, 1), moments.permute(0, 2, 3, 1)


class DeployedLevel(nn.Module):
    """A level whose digits enter as one table per output row and one per output column.

    Args:
        level: the level.
        inputs: how many of its inputs come before the digits (and the cell).
        scale: factor on its output.
        mean: added to its output after that.
    """

    weight: Tensor
    tail: Tensor
    bias: Tensor

    def __init__(
        self, level: Level, inputs: int, dtype: torch.dtype, scale: float = 1.0, mean: float = 0.0
    ) -> None:
        super().__init__()
        weight, bias = centred(level.norm, level.fc1)
        self.register_buffer("weight", weight[:, :inputs].clone().to(dtype))
        self.register_buffer("tail", weight[:, inputs:].t().clone())
        self.register_buffer("bias", bias.clone().to(dtype))
        self.fc2 = nn.Linear(level.fc2.in_features, level.fc2.out_features, dtype=bias.dtype)
        with torch.no_grad():
            self.fc2.weight.copy_(level.fc2.weight * scale)
            self.fc2.bias.copy_(level.fc2.bias * scale + mean)
        self.fc2 = self.fc2.to(dtype)
        self.eps = level.norm.eps

    def finish(self, product: Tensor, variance: Tensor) -> Tensor:
        """The level from its centred product and its variance float32[N, Ho, Wo, 1]."""
        inverse = torch.rsqrt(variance + self.eps).to(product.dtype)
        out: Tensor = self.fc2(functional.gelu(product * inverse + self.bias))
        return out

    def forward(self, x: Tensor, digit_y: Tensor, digit_x: Tensor) -> Tensor:
        """Map [N, Ho, Wo, width] and digits float32[Ho], float32[Wo] to [N, Ho, Wo, out]."""
        dtype = self.tail.dtype
        y, across = digit_y.to(dtype)[:, None, None], digit_x.to(dtype)[:, None]
        tables = (y * self.tail[0]).to(x.dtype), (across * self.tail[1]).to(x.dtype)
        product = functional.linear(x, self.weight) + tables[0] + tables[1]
        wide = widened(x)
        width = x.shape[3]
        inner = wide.mean(dim=3, keepdim=True)
        spread = ((wide - inner) ** 2).sum(dim=3, keepdim=True)
        y, across = y.to(wide.dtype), across.to(wide.dtype)
        mean = (inner * width + y + across) / (width + 2)
        spread = spread + (inner - mean) ** 2 * width + (y - mean) ** 2 + (across - mean) ** 2
        return self.finish(product, spread / (width + 2))


class DeployedAttention(nn.Module):
    """Linear attention with query, average and the layer after it joined into one matrix.

    ``k^T v / Q`` is one small matrix per head and image, so ``fc1(x + q M)`` is linear in x.
    """

    query: Tensor
    query_bias: Tensor

    def __init__(self, unit: LinearAttention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = unit.heads
        width = unit.fc1.in_features
        depth = width // unit.heads
        weight = unit.qkv.weight.reshape(unit.heads, 3, depth, width)
        assert unit.qkv.bias is not None
        bias = unit.qkv.bias.reshape(unit.heads, 3, depth)
        # The joined matrix is made once per call: its parts stay in float32.
        self.register_buffer("query", weight[:, 0].clone())
        self.register_buffer("query_bias", bias[:, 0, :, None].clone())
        self.fc1 = unit.fc1
        self.key = self._linear(weight[:, 1], bias[:, 1], dtype)
        self.value = self._linear(weight[:, 2], bias[:, 2], dtype)
        self.norm_k, self.norm_v = unit.norm_k, unit.norm_v
        self.fc2 = unit.fc2.to(dtype)

    @staticmethod
    def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> nn.Linear:
        width = weight.shape[2]
        linear = nn.Linear(width, width, dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight.reshape(width, width))
            linear.bias.copy_(bias.reshape(width))
        return linear.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, Ho, Wo, width] to the same shape."""
        n, rows, cols, width = x.shape
        depth = width // self.heads
        flat = x.reshape(n, rows * cols, width)
        k = self.norm_k(widened(self.key(flat).reshape(n, rows * cols, self.heads, depth)))
        v = self.norm_v(widened(self.value(flat).reshape(n, rows * cols, self.heads, depth)))
        # [N, heads, depth of v, depth of k]: the transpose of k^T v.
        total = torch.matmul(v.permute(0, 2, 3, 1), k.permute(0, 2, 1, 3))
        mean = total / torch.full_like(total[:, :, :1, :1], rows * cols)
        joined = torch.matmul(mean, self.query).reshape(n, width, width)
        shift = torch.matmul(mean, self.query_bias).reshape(n, width, 1)
        weight = torch.matmul(self.fc1.weight, joined) + self.fc1.weight
        bias = torch.matmul(self.fc1.weight, shift)[:, :, 0] + self.fc1.bias
        hidden = torch.matmul(flat, weight.transpose(1, 2).to(x.dtype))
        hidden = functional.gelu(hidden + bias[:, None, :].to(x.dtype))
        out: Tensor = self.fc2(hidden) + flat
        return out.reshape(n, rows, cols, width)


class HIIFRender(RenderModule):
    """Decode output pixels from the lifted features."""

    def __init__(self, upsampler: HIIF, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(norm, dtype)
        width = self.width = upsampler.project.out_channels
        self.shift = upsampler.digit_shift
        levels, units = upsampler.parts()
        last = len(levels) - 1
        self.levels = nn.ModuleList(
            DeployedLevel(level, width if j else 4 * width, dtype, norm.std if j == last else 1.0)
            for j, level in enumerate(levels)
        )
        # What the first level multiplies per neighbour is in the lift.
        del self.levels[0].weight
        self.attention = nn.ModuleList(DeployedAttention(unit, dtype) for unit in units)

    def _first(
        self, base: Tensor, moments: Tensor, rows: Lines, cols: Lines, cell: Tensor
    ) -> Tensor:
        """The first level: [N, Ho, Wo, width]."""
        level, width, border = self.levels[0], self.width, moments.dtype
        assert isinstance(level, DeployedLevel)
        weight_y = [w.to(border)[:, None, None] for w in rows.weight]
        weight_x = [w.to(border)[:, None] for w in cols.weight]
        shares = torch.split(base.to(self.dtype), width, dim=3)
        products, means, spreads = [], [], []
        for x, (col, across) in enumerate(zip(cols.index, weight_x, strict=True)):
            lines = [
                shares[2 * y + x].index_select(1, row) * down.to(self.dtype)
                for y, (row, down) in enumerate(zip(rows.index, weight_y, strict=True))
            ]
            line = (lines[0] + lines[1]).index_select(2, col)
            products.append(line * across.to(self.dtype))
            for row, down in zip(rows.index, weight_y, strict=True):
                found = moments.index_select(1, row).index_select(2, col)
                weight = down * across
                means.append(found[..., 0:1] * weight)
                spreads.append(found[..., 1:2] * weight**2)
        # Cell and digits: four further inputs of the LayerNorm.
        more = [
            cell[0:1].to(border),
            cell[1:2].to(border),
            rows.digits[0].to(border)[:, None, None],
            cols.digits[0].to(border)[:, None],
        ]
        tail = level.tail
        table_y = more[2] * tail[2] + more[0] * tail[0] + more[1] * tail[1]
        table_x = more[3] * tail[3]
        product = products[0] + products[1] + table_y.to(self.dtype) + table_x.to(self.dtype)
        count = 4 * width + 4
        total = means[0] + means[1] + means[2] + means[3]
        mean = (total * width + more[0] + more[1] + more[2] + more[3]) / count
        spread = spreads[0] + spreads[1] + spreads[2] + spreads[3]
        for part in means:
            spread = spread + (part - mean) ** 2 * width
        for value in more:
            spread = spread + (value - mean) ** 2
        return level.finish(product, spread / count)

    def forward(self, base: Tensor, moments: Tensor, skip: Tensor, *grid: Tensor) -> Tensor:
        """Map float32 features at LR size and the grid to float32[N, 3, Ho, Wo]."""
        at, levels = GridTensors(*grid), len(self.levels)
        rows = axis_lines(at.row_index, at.row_offset, base.shape[1], levels, self.shift)
        cols = axis_lines(at.col_index, at.col_offset, base.shape[2], levels, self.shift)
        x = self._first(base, moments, rows, cols, 2 / at.scale)
        for unit in self.attention:
            x = unit(x)
        for j, level in enumerate(self.levels):
            if j:
                x = level(x, rows.digits[j], cols.digits[j])
        low = bilinear(skip, at)
        return x.permute(0, 3, 1, 2).to(low.dtype) + low * self.std + self.mean
