"""HiT-SR: transformers whose windows grow from layer to layer (Zhang et al. 2024, ECCV).

Source: arXiv 2407.05878, sections 3.2 (expanding windows) and 3.3 (spatial-channel correlation),
with the details of the authors' code: normalisation after each branch, no shift, no mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder, Tiling
from scaleport.models.correlation import Correlation, pointwise
from scaleport.models.encoders.edsr import conv3
from scaleport.models.encoders.windowed import DropPath
from scaleport.models.layers import ChannelNorm, LayerNorm
from scaleport.models.registry import ENCODERS

_LONGEST_STEP = 256
WINDOWED = Tiling("approximate", "windows are counted from the corner of the input")


class FeedForward(nn.Module):
    """``Linear, GELU, Linear``; the convolutional one adds ``GELU(depthwise 5x5)`` in between."""

    def __init__(self, width: int, ratio: float, convolutional: bool) -> None:
        super().__init__()
        hidden = int(width * ratio)
        if hidden < 1:
            raise UsageError(f"mlp_ratio {ratio} leaves no hidden channel")
        self.expand = nn.Linear(width, hidden)
        self.depthwise = (
            nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden) if convolutional else None
        )
        self.reduce = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        x = functional.gelu(self.expand(x))
        if self.depthwise is not None:
            x = x + functional.gelu(self.depthwise(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        out: Tensor = self.reduce(x)
        return out

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps."""
        return FeedForwardMap(self)


class FeedForwardMap(nn.Module):
    """Deploy form of :class:`FeedForward`."""

    def __init__(self, source: FeedForward) -> None:
        super().__init__()
        self.expand = pointwise(source.expand)
        self.depthwise = source.depthwise
        self.reduce = pointwise(source.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        x = functional.gelu(self.expand(x))
        if self.depthwise is not None:
            x = x + functional.gelu(self.depthwise(x))
        out: Tensor = self.reduce(x)
        return out


def over_channels(norm: LayerNorm) -> ChannelNorm:
    """The normalisation of a map's channels that does what ``norm`` does to tokens."""
    twin = ChannelNorm(norm.weight.shape[0], norm.eps)
    twin.weight, twin.bias = norm.weight, norm.bias
    return twin


def deployed(modules: nn.ModuleList) -> nn.ModuleList:
    """The deploy forms of modules that have one."""
    return nn.ModuleList(cast(Any, module).deploy() for module in modules)


class HiTLayer(nn.Module):
    """``x + norm(correlation(x))``, then ``x + norm(feed-forward(x))``."""

    def __init__(
        self,
        width: int,
        heads: int,
        window: int,
        mlp_ratio: float,
        base: int,
        convolutional: bool,
        drop_path: float = 0.0,
        code: bool = False,
    ) -> None:
        super().__init__()
        self.correlation = Correlation(width, heads, window, base, code)
        self.norm1 = LayerNorm(width)
        self.mlp = FeedForward(width, mlp_ratio, convolutional)
        self.norm2 = LayerNorm(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        x = x + self.drop_path(self.norm1(self.correlation(x)))
        out: Tensor = x + self.drop_path(self.norm2(self.mlp(x)))
        return out

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps."""
        return HiTLayerMap(self)


class HiTLayerMap(nn.Module):
    """Deploy form of :class:`HiTLayer`."""

    def __init__(self, source: HiTLayer) -> None:
        super().__init__()
        self.correlation = source.correlation.deploy()
        self.norm1 = over_channels(source.norm1)
        self.mlp = source.mlp.deploy()
        self.norm2 = over_channels(source.norm2)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        x = x + self.norm1(self.correlation(x))
        out: Tensor = x + self.norm2(self.mlp(x))
        return out


class HiTBlock(nn.Module):
    """Layers of growing windows, a 3x3 convolution, and the input again."""

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        y = x
        for layer in self.layers:
            y = layer(y)
        out: Tensor = x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps."""
        return HiTBlockMap(self)


class HiTBlockMap(nn.Module):
    """Deploy form of :class:`HiTBlock`."""

    def __init__(self, source: HiTBlock) -> None:
        super().__init__()
        self.layers = deployed(source.layers)
        self.conv = source.conv

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = x
        for layer in self.layers:
            y = layer(y)
        out: Tensor = x + self.conv(y)
        return out


class TokenEncoder(Encoder):
    """Frame around blocks that work on tokens: head, norm, blocks, norm, tail, long skip.

    Linear layers start from a truncated normal of 0.02 with zero bias.
    """

    rewrites: tuple[str, ...] = (
        "correlation without a map of pairs",
        "position bias as a constant",
        "linear layers as 1x1 convolutions of maps",
    )

    def __init__(self, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.out_channels = width
        self.head = conv3(3, width)
        self.norm1 = LayerNorm(width)
        self.blocks = nn.ModuleList(blocks)
        self.norm2 = LayerNorm(width)
        self.tail = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = self.norm1(shallow.permute(0, 2, 3, 1))
        for block in self.blocks:
            y = block(y)
        out: Tensor = shallow + self.tail(self.norm2(y).permute(0, 3, 1, 2))
        return out

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps throughout."""
        return MapEncoder(self)


class MapEncoder(nn.Module):
    """Deploy form of :class:`TokenEncoder`."""

    def __init__(self, source: TokenEncoder) -> None:
        super().__init__()
        self.head = source.head
        self.norm1 = over_channels(source.norm1)
        self.blocks = deployed(source.blocks)
        self.norm2 = over_channels(source.norm2)
        self.tail = source.tail

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = self.norm1(shallow)
        for block in self.blocks:
            y = block(y)
        out: Tensor = shallow + self.tail(self.norm2(y))
        return out


def start_linear(module: nn.Module) -> None:
    """Published start of linear layers, for ``Module.apply``; all-zero weights stay."""
    if isinstance(module, nn.Linear) and bool(module.weight.any()):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_windows(name: str, windows: tuple[int, ...] | list[int], blocks: int) -> None:
    """Refuse what is not a list of window lengths.

    Raises:
        UsageError: naming the encoder.
    """
    integers = isinstance(windows, (tuple, list)) and all(type(w) is int for w in windows)
    if not integers or not windows or min(windows) < 1 or blocks < 1:
        raise UsageError(f"{name} needs at least 1 block and windows of at least 1 pixel")


def shared_step(windows: tuple[int, ...] | list[int]) -> int:
    """The least distance that tiles can move by without moving any window; at most 256 pixels."""
    step = math.lcm(*windows)
    return step if step <= _LONGEST_STEP else max(windows)


def drop_rates(name: str, last: float, layers: int) -> Iterator[float]:
    """Probabilities of leaving a layer out in training, from 0 at the first to ``last``.

    Raises:
        UsageError: naming the encoder.
    """
    if not 0 <= last < 1:
        raise UsageError(f"{name} needs a drop_path of at least 0 and below 1")
    return iter(torch.linspace(0, last, layers).tolist())


class _HiT(TokenEncoder):
    tiling = WINDOWED
    float32_parts = "layer norms and softmax"
    name = ""
    convolutional = False

    def __init__(
        self,
        width: int = 60,
        blocks: int = 4,
        windows: tuple[int, ...] | list[int] = (4, 8, 16, 32, 48, 64),
        heads: int = 6,
        mlp_ratio: float = 2.0,
        base: int = 8,
        drop_path: float = 0.1,
    ) -> None:
        check_windows(self.name, windows, blocks)
        rates = drop_rates(self.name, drop_path, blocks * len(windows))

        def block() -> nn.Module:
            layers: list[nn.Module] = [
                HiTLayer(width, heads, w, mlp_ratio, base, self.convolutional, next(rates))
                for w in windows
            ]
            return HiTBlock(layers, width)

        super().__init__(width, [block() for _ in range(blocks)])
        self.tile_step = shared_step(windows)
        self.apply(start_linear)


@ENCODERS.register("hit-sir")
class HiTSIR(_HiT):
    """HiT-SIR body: 765 572 parameters (772 064 with SPConv x2).

    Published with images minus the mean (0.4488, 0.4371, 0.4040). Each layer sees the map
    continued by reflection to whole windows of its own.

    Args:
        width: channels, published 60.
        blocks: residual blocks, published 4.
        windows: side of the windows of a block's layers, one layer each.
        heads: heads of the spatial correlation; ``2 * heads`` divides ``width``.
        mlp_ratio: hidden channels of the feed-forward part per channel.
        base: larger windows are pooled to ``base`` x ``base`` keys and must be multiples of it.
        drop_path: stochastic depth in training; grows linearly to this at the last layer.
    """

    name = "hit-sir"


@ENCODERS.register("hit-srf")
class HiTSRF(_HiT):
    """HiT-SRF body: HiT-SIR with a convolutional feed-forward part; 840 452 parameters.

    846 944 with SPConv x2. Options and input as for :class:`HiTSIR`.
    """

    name = "hit-srf"
    convolutional = True
