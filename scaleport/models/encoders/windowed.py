"""What SwinIR and SRFormer share: groups of blocks that attend within shifted windows.

Positions of windows come from integers in the graph, so that one graph serves images of any size.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.base import Encoder, Padding, PaddingKind, Tiling
from scaleport.models.encoders.edsr import conv3
from scaleport.models.layers import (
    LayerNorm,
    join_windows,
    softmax,
    split_windows,
)

MASKED = -100.0
"""Added to the logits of pairs that are only neighbours because the map was rolled."""


def rolled(x: Tensor, shift: int) -> Tensor:
    """Move float[N, H, W, C] up and left by ``shift``, in at the other end; back if negative."""
    x = torch.cat([x[:, shift:], x[:, :shift]], dim=1)
    return torch.cat([x[:, :, shift:], x[:, :, :shift]], dim=2)


def relative_places(window: int, queries: int) -> Tensor:
    """Row of the table of relative positions for every pair of a query and a key.

    Args:
        window: keys along one axis.
        queries: queries along one axis for each key; those share the key's place.

    Returns:
        int64[(window * queries)^2, window^2].
    """
    keys = torch.arange(window)
    places = torch.arange(window * queries) // queries
    apart = places[:, None] - keys[None, :] + window - 1
    rows = apart[:, None, :, None] * (2 * window - 1) + apart[None, :, None, :]
    return rows.reshape((window * queries) ** 2, window * window)


def strangers(queries: int, query_split: int, keys: int, key_split: int) -> tuple[Tensor, Tensor]:
    """Which pairs of a window are of different parts of the image, by rows and by columns.

    Applies to the last window of an axis after rolling: what comes after the split was rolled in
    from the other end.

    Args:
        queries: queries along one axis of a window.
        query_split: the first of them that was rolled in.
        keys: keys along one axis.
        key_split: the first of them that was rolled in.

    Returns:
        float[queries^2, keys^2] of 0 and 1, twice.
    """
    apart = (torch.arange(queries) >= query_split)[:, None] != (torch.arange(keys) >= key_split)
    by_rows = apart[:, None, :, None].expand(-1, queries, -1, keys)
    by_cols = apart[None, :, None, :].expand(queries, -1, keys, -1)
    shape = queries * queries, keys * keys
    return by_rows.reshape(shape).float(), by_cols.reshape(shape).float()


class DropPath(nn.Module):
    """In training, leave out what a residual branch made, per sample with a probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, ...] to the same shape."""
        if not self.training or self.probability == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.probability
        return x * kept.to(x.dtype) / (1 - self.probability)


class BiasedAttention(nn.Module, abc.ABC):
    """Attention of queries to keys with a bias per relative position, and the layer after it.

    Args:
        width: channels.
        heads: attention heads.
        places: row of the table for every pair of a query and a key, int64[T, K].
        rows: rows of the table.
    """

    places: Tensor
    bias: Tensor | None

    def __init__(self, width: int, heads: int, places: Tensor, rows: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.table = nn.Parameter(torch.zeros(rows, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("bias", None, persistent=False)
        self.proj = nn.Linear(width, width)

    @abc.abstractmethod
    def scaled_rows(self) -> tuple[Tensor, ...]:
        """Weights and biases, as views, that make the queries: to be scaled once for all."""

    def freeze(self) -> None:
        """Turn into the deploy form: the scale in the queries' weights, the bias gathered."""
        with torch.no_grad():
            for rows in self.scaled_rows():
                rows.mul_(self.scale)
        self.scale = 1.0
        self.bias = self.pair_bias().detach().contiguous()
        del self.table, self.places

    def pair_bias(self) -> Tensor:
        """float[heads, T, K]."""
        if self.bias is not None:
            return self.bias
        rows, cols = self.places.shape
        return self.table.index_select(0, self.places.flatten()).t().reshape(-1, rows, cols)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """What the queries read, float[B, T, width].

        Args:
            query: float[B, heads, T, d].
            key: float[B, heads, K, d].
            value: float[B, heads, K, d].
            mask: float[B, 1, T, K], added to the logits.
        """
        b, _, t, d = query.shape
        if self.scale != 1:
            query = query * self.scale
        logits = torch.matmul(query, key.transpose(2, 3)) + self.pair_bias()
        if mask is not None:
            logits = logits + mask
        y = torch.matmul(softmax(logits), value).transpose(1, 2).reshape(b, t, self.heads * d)
        out: Tensor = self.proj(y)
        return out


class Attention(BiasedAttention):
    """Attention of the tokens of a window.

    Args:
        width: channels.
        heads: attention heads.
        window: keys along one axis of a window.
        queries: queries along one axis for each key.
    """

    def __init__(self, width: int, heads: int, window: int, queries: int = 1) -> None:
        super().__init__(width, heads, relative_places(window, queries), (2 * window - 1) ** 2)

    @abc.abstractmethod
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries float[B, heads, T, d], keys and values float[B, heads, K, d]."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map float[B, T, width] to the same shape; ``mask`` float[B, 1, T, K] is added."""
        return self.attend(*self.parts(x), mask)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``, on maps float[N, H, W, width]."""

    def __init__(
        self,
        width: int,
        window: int,
        shift: int,
        attention: Attention,
        mlp: nn.Module,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = LayerNorm(width)
        self.attention = attention
        self.norm2 = LayerNorm(width)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, counts: tuple[int, int, int], mask: Tensor | None) -> Tensor:
        """Map float[N, H, W, width] to the same shape.

        Args:
            x: a map of whole windows.
            counts: N, and how many windows there are down and across.
            mask: for the shifted windows, from :meth:`WindowedEncoder.mask`.
        """
        n, down, across = counts
        y = self.norm1(x)
        if self.shift:
            y = rolled(y, self.shift)
        windows = split_windows(y, self.window, down, across)
        windows = self.attention(windows, mask if self.shift else None)
        y = join_windows(windows, n, self.window, down, across)
        if self.shift:
            y = rolled(y, -self.shift)
        x = x + self.drop_path(y)
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class Group(nn.Module):
    """Blocks, every other one with shifted windows, a 3x3 convolution, and the input again."""

    def __init__(self, width: int, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.tail = conv3(width, width)

    def forward(self, x: Tensor, counts: tuple[int, int, int], mask: Tensor | None) -> Tensor:
        """Map float[N, H, W, width] to the same shape; arguments as for :class:`Block`."""
        y = x
        for block in self.blocks:
            y = block(y, counts, mask)
        out: Tensor = x + self.tail(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


MakeParts = Callable[[], tuple[Attention, nn.Module]]


class WindowedEncoder(Encoder):
    """Shallow convolution, groups of blocks, a last convolution, long skip.

    The image has to be continued to whole windows; all of the features go to the upsampler.

    Args:
        name: for messages.
        width: channels.
        depths: blocks of each group.
        heads: attention heads.
        window: side of a window, in pixels.
        drop_path: probability that the last block is left out for a sample in training; it grows
            linearly from 0 at the first.
        make: makes the attention and the MLP of one block.
        keys: keys along one axis of a window.
        padding: what continues images, see :class:`scaleport.models.base.Padding`.
        in_channels: channels of what it is given: colours, or features.
    """

    tiling = Tiling("approximate", "windows are laid out from the corner of a tile")
    float32_parts = "layer norms and softmax"
    by_rows: Tensor
    by_cols: Tensor

    rewrites: tuple[str, ...] = ("position biases gathered, scale folded in",)

    def __init__(
        self,
        name: str,
        width: int,
        depths: list[int] | tuple[int, ...],
        heads: int,
        window: int,
        drop_path: float,
        make: MakeParts,
        keys: int,
        padding: PaddingKind = "reflect",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.padding = Padding(window, padding)
        self.tile_step = window
        if not 0 <= drop_path < 1:
            raise UsageError(f"{name} needs a drop_path of at least 0 and below 1")
        self.out_channels = width
        self.window = window
        shift = window // 2
        self.head = conv3(in_channels, width)
        self.head_norm = LayerNorm(width)
        last = max(1, sum(depths) - 1)
        rates = (drop_path * i / last for i in range(sum(depths)))
        self.groups = nn.ModuleList(
            Group(
                width,
                [
                    Block(width, window, shift if i % 2 else 0, *make(), drop_path=next(rates))
                    for i in range(depth)
                ],
            )
            for depth in depths
        )
        self.norm = LayerNorm(width)
        self.tail = conv3(width, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        # Keys that stand for several pixels belong to what was rolled in if any of them does.
        key_shift = -(-shift * keys // window)
        by_rows, by_cols = strangers(window, window - shift, keys, keys - key_shift)
        self.register_buffer("by_rows", by_rows, persistent=False)
        self.register_buffer("by_cols", by_cols, persistent=False)

    @staticmethod
    def check(
        name: str, width: int, depths: list[int] | tuple[int, ...], heads: int, mlp_ratio: float
    ) -> None:
        """Refuse options that no network can be built from.

        Raises:
            UsageError: saying which.
        """
        if heads < 1 or width < 1 or width % heads:
            raise UsageError(f"{name} needs a width that is a multiple of heads")
        if not depths or any(type(depth) is not int or depth < 1 for depth in depths):
            raise UsageError(f"{name} needs depths of at least 1 for one group or more")
        if int(width * mlp_ratio) < 1:
            raise UsageError(f"{name} needs an mlp_ratio that leaves hidden channels")

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order."""
        for group in self.groups:
            assert isinstance(group, Group)
            for block in group.blocks:
                assert isinstance(block, Block)
                yield block

    def mask(self, n: int, down: int, across: int) -> Tensor | None:
        """What is added to the logits of shifted windows, float[n * down * across, 1, T, K].

        None if no block shifts its windows.
        """
        if not any(block.shift for block in self.blocks()):
            return None
        row = torch.arange(n * down, device=self.by_rows.device, dtype=torch.int32)
        col = torch.arange(across, device=self.by_rows.device, dtype=torch.int32)
        row = torch.remainder(row, torch.full_like(row, down))
        last_row = torch.eq(row, torch.full_like(row, down - 1)).to(self.by_rows.dtype)
        last_col = torch.eq(col, torch.full_like(col, across - 1)).to(self.by_cols.dtype)
        by_rows = last_row[:, None, None, None] * self.by_rows
        by_cols = last_col[None, :, None, None] * self.by_cols
        mask = torch.maximum(by_rows, by_cols) * MASKED
        t, k = self.by_rows.shape
        return mask.reshape(n * down * across, 1, t, k)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, in_channels, H, W], of whole windows, to float[N, width, H, W]."""
        n, height, width = x.shape[0], x.shape[2], x.shape[3]
        down, across = height // self.window, width // self.window
        shallow = self.head(x)
        # The same for all blocks: it depends on the size only.
        mask = self.mask(n, down, across)
        y = self.head_norm(shallow.permute(0, 2, 3, 1))
        for group in self.groups:
            y = group(y, (n, down, across), mask)
        deep = self.tail(self.norm(y).permute(0, 3, 1, 2))
        out: Tensor = shallow + deep
        return out

    def deploy(self) -> nn.Module:
        """The same network with the biases of all pairs gathered and the scale folded in."""
        for block in self.blocks():
            block.attention.freeze()
        return self
