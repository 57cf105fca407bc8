"""Spatial-channel correlation of windows (HiT-SR: Zhang et al. 2024, arXiv 2407.05878).

Windowed attention without softmax. Half of the channels are queries, half are values. Values are
pooled to at most ``base**2`` keys per window, so that a window of 64x64 costs per pixel what one
of 8x8 does; and without a softmax the products may be taken in any order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.layers import (
    LayerNorm,
    count_windows,
    crop,
    join_windows,
    pad_to_windows,
    split_windows,
    widened,
)


def pointwise(linear: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution that does to a map what a linear layer does to tokens."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach())
    return conv


class DualFeatures(nn.Module):
    """Queries and values of a map: a 3x3 bottleneck of a fifth of the width, times a 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // 5
        self.reduce = nn.Conv2d(width, narrow, 1)
        self.conv = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.expand = nn.Conv2d(narrow, width, 1)
        self.linear = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape: queries first, then values."""
        y = functional.leaky_relu(self.reduce(x), 0.2)
        y = functional.leaky_relu(self.conv(y), 0.2)
        out: Tensor = self.expand(y) * self.linear(x)
        return out


class PositionBias(nn.Module):
    """What a query and a key have in common because of where they lie: an MLP of their offset."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        inner = max(width // 16, 1)
        self.project = nn.Linear(2, inner)
        self.norms = nn.ModuleList(LayerNorm(inner) for _ in range(3))
        self.linears = nn.ModuleList(nn.Linear(inner, out) for out in (inner, inner, heads))

    def table(self, window: int) -> Tensor:
        """Bias of every offset (dy, dx) in ``1 - window .. window - 1``: [heads, 2w-1, 2w-1]."""
        weight = self.project.weight
        reach = torch.arange(1 - window, window, device=weight.device).to(weight.dtype)
        count = 2 * window - 1
        y = reach[:, None].expand(count, count)
        x = self.project(torch.stack([y, y.T], dim=-1))
        for norm, linear in zip(self.norms, self.linears, strict=True):
            x = linear(functional.relu(norm(x)))
        out: Tensor = x.permute(2, 0, 1)
        return out

    def forward(self, window: int, keys: int) -> Tensor:
        """Bias between each pixel of a window and each of its ``keys**2`` pooled keys.

        A pooled key stands for a square of ``window / keys`` pixels; its bias is their mean.

        Returns:
            float[heads, window**2, keys**2].
        """
        ratio = window // keys
        # The mean over a square of keys is one over a square of offsets: pooling the table first
        # spares the window**4 numbers of one bias per pair of pixels.
        table = functional.avg_pool2d(self.table(window), ratio, stride=1)
        place = torch.arange(window, device=table.device)[:, None]
        key = torch.arange(keys, device=table.device)[None, :]
        # The farthest pixel of a square is ratio - 1 further on than its first.
        offset = (place - ratio * key + (window - ratio)).flatten()
        chosen = table.index_select(1, offset).index_select(2, offset)
        heads = table.shape[0]
        chosen = chosen.reshape(heads, window, keys, window, keys).permute(0, 1, 3, 2, 4)
        return chosen.reshape(heads, window * window, keys * keys)


class PositionCode(nn.Module):
    """A code of each place in a window: a linear map of the binary digits of its row and column.

    The sum of a code per row and one per column, as the digits of both are separate inputs.
    Starts at zero.
    """

    digits: Tensor

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        count = window.bit_length() - 1
        if window != 1 << count:
            raise UsageError(f"a position code needs windows of powers of two, got {window}")
        places = torch.arange(window)[:, None]
        digits = (places >> torch.arange(count - 1, -1, -1)) & 1
        self.register_buffer("digits", digits.float(), persistent=False)
        self.linear = nn.Linear(2 * count, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def axes(self) -> tuple[Tensor, Tensor]:
        """Codes of rows and of columns, each float[window, width]."""
        by_row, by_col = self.linear.weight.chunk(2, dim=1)
        return self.digits @ by_row.T, self.digits @ by_col.T


def add_code(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Add codes float[window, C] to every window of float[N, C, H, W]."""
    window = rows.shape[0]
    places = [
        torch.remainder(torch.arange(size, device=x.device, dtype=torch.int32), window)
        for size in (x.shape[2], x.shape[3])
    ]
    by_row = rows.T.index_select(1, places[0])[None, :, :, None]
    by_col = cols.T.index_select(1, places[1])[None, :, None, :]
    return x + by_row + by_col


class Correlation(nn.Module):
    """Training form of the spatial-channel correlation, as published.

    With queries q and values v of a window (L = window**2 tokens, h heads of d channels), pooled
    values v' and position bias P::

        spatial = (q v'^T / d + P) v'        per head
        channel = v (v^T q) / L              over all heads at once
        out     = Linear(concat(spatial, channel))

    Args:
        width: channels; an even multiple of ``heads``.
        heads: heads h of the spatial part.
        window: length of a window's side.
        base: a window is pooled to ``base`` x ``base`` keys, or not at all if it is smaller.
        code: whether a :class:`PositionCode` is added first.
    """

    def __init__(
        self, width: int, heads: int, window: int, base: int = 8, code: bool = False
    ) -> None:
        super().__init__()
        if width < 5 or heads < 1 or width % (2 * heads):
            raise UsageError(
                f"a correlation needs a width that 2 * heads divides, of at least 5, "
                f"got {width} for {heads} heads"
            )
        if window < 1 or base < 1 or (window > base and window % base):
            raise UsageError(f"windows beyond {base} must be multiples of it, got {window}")
        self.width, self.heads, self.window = width, heads, window
        self.keys = min(window, base)
        self.features = DualFeatures(width)
        self.pool = nn.Linear((window // self.keys) ** 2, 1)
        self.position = PositionBias(width, heads)
        self.project = nn.Linear(width, width)
        self.code = PositionCode(width, window) if code else None

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        n, height, width, _ = x.shape
        x = pad_to_windows(x.permute(0, 3, 1, 2), self.window)
        if self.code is not None:
            x = add_code(x, *self.code.axes())
        down, across = x.shape[2] // self.window, x.shape[3] // self.window
        qv = self.features(x).permute(0, 2, 3, 1)
        q, v = split_windows(qv, self.window, down, across).chunk(2, dim=-1)
        mixed = torch.cat([self._spatial(q, v), self._channel(q, v)], dim=-1)
        y = join_windows(self.project(mixed), n, self.window, down, across)
        out: Tensor = y[:, :height, :width]
        return out

    def _spatial(self, q: Tensor, v: Tensor) -> Tensor:
        count, length, half = q.shape
        depth, keys, ratio = half // self.heads, self.keys, self.window // self.keys
        squares = v.reshape(count, keys, ratio, keys, ratio, half).permute(0, 1, 3, 5, 2, 4)
        pooled = self.pool(squares.reshape(count, keys * keys, half, ratio * ratio))[..., 0]
        pooled = pooled.reshape(count, keys * keys, self.heads, depth).transpose(1, 2)
        q = q.reshape(count, length, self.heads, depth).transpose(1, 2)
        weights = q @ pooled.transpose(2, 3) / depth + self.position(self.window, keys)
        out: Tensor = (weights @ pooled).transpose(1, 2).reshape(count, length, half)
        return out

    def _channel(self, q: Tensor, v: Tensor) -> Tensor:
        return v @ (v.transpose(1, 2) @ q) / q.shape[1]

    def deploy(self) -> CorrelationMap:
        """The deploy form, which works on maps."""
        return CorrelationMap(self)


class CorrelationMap(nn.Module):
    """Deploy form of :class:`Correlation`: the same function of a map, with no map of pairs.

    ``(q v'^T) v' = q (v'^T v')`` needs a d x d product per head instead of L x keys weights; the
    position bias depends on weights only and is a constant; pooling is a strided convolution
    before the map is cut into windows.
    """

    bias: Tensor
    rows: Tensor
    cols: Tensor

    def __init__(self, source: Correlation) -> None:
        super().__init__()
        self.heads, self.window, self.keys = source.heads, source.window, source.keys
        self.values = source.width // 2
        self.coded = source.code is not None
        self.features = source.features
        self.project = pointwise(source.project)
        ratio = source.window // source.keys
        self.pool = nn.Conv2d(self.values, self.values, ratio, stride=ratio, groups=self.values)
        weight = source.pool.weight.reshape(1, 1, ratio, ratio)
        self.pool.weight = nn.Parameter(weight.detach().repeat(self.values, 1, 1, 1))
        self.pool.bias = nn.Parameter(source.pool.bias.detach().repeat(self.values))
        bias = source.position(source.window, source.keys).transpose(1, 2)
        self.register_buffer("bias", bias.detach().contiguous())
        if source.code is not None:
            rows, cols = source.code.axes()
            self.register_buffer("rows", rows.detach().contiguous())
            self.register_buffer("cols", cols.detach().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        height, width = x.shape[2], x.shape[3]
        down, across = count_windows(height, self.window), count_windows(width, self.window)
        x = pad_to_windows(x, self.window)
        if self.coded:
            x = add_code(x, self.rows, self.cols)
        n, half, heads = x.shape[0], self.values, self.heads
        qv = self.features(x)
        windows = split_map(qv, self.window, down, across)
        q, v = windows[:, :half], windows[:, half:]
        pooled = split_map(self.pool(qv[:, half:]), self.keys, down, across)

        # Sums over the tokens of a window: too long for half precision.
        wide_q, wide_v = widened(q), widened(v)
        gram = (wide_q @ wide_v.transpose(1, 2) / self.window**2).to(x.dtype)
        channel = gram @ v

        depth, count = half // heads, n * down * across
        pooled = pooled.reshape(count, heads, depth, self.keys**2)
        wide = widened(pooled)
        gram = (wide @ wide.transpose(2, 3) / depth).to(x.dtype)
        spatial = gram @ q.reshape(count, heads, depth, self.window**2) + pooled @ self.bias
        spatial = spatial.reshape(count, half, self.window**2)

        y = join_map(torch.cat([spatial, channel], dim=1), n, self.window, down, across)
        out: Tensor = self.project(crop(y, height, width))
        return out


def split_map(x: Tensor, window: int, down: int, across: int) -> Tensor:
    """Map float[N, C, down * window, across * window] to float[N * down * across, C, window**2]."""
    n, c = x.shape[0], x.shape[1]
    # In two steps of rank 4, for Core ML.
    x = x.reshape(n * c * down, window, across, window).permute(0, 2, 1, 3)
    x = x.reshape(n, c, down * across, window * window).permute(0, 2, 1, 3)
    return x.reshape(n * down * across, c, window * window)


def join_map(x: Tensor, n: int, window: int, down: int, across: int) -> Tensor:
    """The inverse of :func:`split_map` for a batch of ``n``."""
    c = x.shape[1]
    x = x.reshape(n, down * across, c, window * window).permute(0, 2, 1, 3)
    x = x.reshape(n * c * down, across, window, window).permute(0, 2, 1, 3)
    return x.reshape(n, c, down * window, across * window)
