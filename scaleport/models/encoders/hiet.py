"""HiET, the backbone of C2D-ISR (arXiv 2503.13740): HiT layers in a U of windows.

A reconstruction. The paper gives the blocks, their U-shaped arrangement and the hierarchical
position code; the windows [64, 32, 8, 32, 64] are those of a paper by the same authors that adopts
the layer (arXiv 2506.14381). What neither gives is our choice: constant resolution and width, skips
joined by 1x1 convolutions, the code as digits of the place in a window, and layers as in HiT-SR.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.base import Tiling
from scaleport.models.correlation import Correlation, pointwise
from scaleport.models.encoders.edsr import conv3
from scaleport.models.encoders.hit import (
    WINDOWED,
    HiTLayer,
    TokenEncoder,
    check_windows,
    deployed,
    drop_rates,
    shared_step,
    start_linear,
)
from scaleport.models.encoders.mambairv2 import (
    REFUSED_SCAN,
    SCANNED,
    MixedLayer,
    scan_by_lanes,
    start_scans,
)
from scaleport.models.registry import ENCODERS
from scaleport.models.scan_graph import LANE

BASES = ("swinir", "srformer", "mambairv2")


class HiETBlock(nn.Module):
    """Layers in a U: what a layer before the middle made is fused with what comes to its twin.

    ``h1 = L1(x); h2 = L2(h1); m = L3(h2); d2 = L4(F2[m, h2]); d1 = L5(F1[d2, h1])`` for five
    layers, then a 3x3 convolution and the input again.
    """

    def __init__(self, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.fuse = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(len(layers) // 2))
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        y = _through(self.layers, self.fuse, x, dim=3)
        out: Tensor = x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps."""
        return HiETBlockMap(self)


class HiETBlockMap(nn.Module):
    """Deploy form of :class:`HiETBlock`."""

    def __init__(self, source: HiETBlock) -> None:
        super().__init__()
        self.layers = deployed(source.layers)
        self.fuse = nn.ModuleList(pointwise(cast(nn.Linear, linear)) for linear in source.fuse)
        self.conv = source.conv

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        out: Tensor = x + self.conv(_through(self.layers, self.fuse, x, dim=1))
        return out


def _through(layers: nn.ModuleList, fuse: nn.ModuleList, x: Tensor, dim: int) -> Tensor:
    """Down and up the U; ``dim`` holds the channels."""
    half = len(fuse)
    kept = []
    for layer in layers[:half]:
        x = layer(x)
        kept.append(x)
    x = layers[half](x)
    for layer, join in zip(layers[half + 1 :], fuse, strict=True):
        x = layer(join(torch.cat([x, kept.pop()], dim=dim)))
    return x


@ENCODERS.register("hiet")
class HiET(TokenEncoder):
    """HiET body of C2D-ISR, on one of three baselines.

    * ``swinir``: HiT layers; 735 664 parameters (742 156 with SPConv x2, 761 632 with x4).
    * ``srformer``: HiT layers with a convolutional feed-forward part; 798 064 parameters.
    * ``mambairv2``: MambaIRv2 layers with the correlation in the place of attention; 679 968
      parameters. Core ML and TensorRT cannot hold it.

    Every correlation starts with a position code, zero in a fresh network.

    Args:
        base: which baseline's layers; also what ``width`` and ``heads`` default to.
        width: channels: 60, or 48 for ``mambairv2``.
        blocks: residual blocks.
        windows: side of the windows of a block's layers, an odd number of powers of two.
        heads: heads of the spatial correlation: 6, or 4 for ``mambairv2``.
        mlp_ratio: hidden channels per channel: 2, or 1 for ``mambairv2``.
        keys: larger windows are pooled to ``keys`` x ``keys`` keys.
        drop_path: stochastic depth in training, not for ``mambairv2``.
    """

    def __init__(
        self,
        base: str = "swinir",
        width: int | None = None,
        blocks: int = 4,
        windows: tuple[int, ...] | list[int] = (64, 32, 8, 32, 64),
        heads: int | None = None,
        mlp_ratio: float | None = None,
        keys: int = 8,
        drop_path: float = 0.1,
    ) -> None:
        if base not in BASES:
            raise UsageError(f"hiet has no base {base!r}; known: {', '.join(BASES)}")
        check_windows("hiet", windows, blocks)
        if len(windows) % 2 == 0:
            raise UsageError(f"hiet needs an odd number of windows, got {len(windows)}")
        scanned = base == "mambairv2"
        width = (48 if scanned else 60) if width is None else width
        heads = (4 if scanned else 6) if heads is None else heads
        ratio = (1.0 if scanned else 2.0) if mlp_ratio is None else mlp_ratio
        rates = drop_rates("hiet", drop_path, blocks * len(windows))

        def layer(window: int) -> nn.Module:
            if scanned:
                mix = Correlation(width, heads, window, keys, code=True)
                return MixedLayer(mix, width, ratio)
            convolutional = base == "srformer"
            return HiTLayer(
                width, heads, window, ratio, keys, convolutional, next(rates), code=True
            )

        super().__init__(
            width, [HiETBlock([layer(w) for w in windows], width) for _ in range(blocks)]
        )
        self.tile_step = shared_step(windows)
        self.tiling: Tiling = SCANNED if scanned else WINDOWED
        self.scanned = scanned
        if scanned:
            self.refused_formats = dict(REFUSED_SCAN)
            self.float32_parts = "selective scan, places of the sorted pixels"
            self.rewrites = (
                "correlation without a map of pairs",
                "position bias as a constant",
                "selective scan in lanes, sorted by counting",
            )
        if scanned:
            start_scans(self)
        else:
            self.apply(start_linear)

    def deploy(self) -> nn.Module:
        """The deploy form, which works on maps; with scans, on tokens around maps."""
        if not self.scanned:
            return super().deploy()
        for module in self.modules():
            if isinstance(module, MixedLayer) and isinstance(module.mix, Correlation):
                module.mix = OnMaps(module.mix.deploy())
        scan_by_lanes(self, LANE)
        return self


class OnMaps(nn.Module):
    """A module that works on maps, for tokens."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        out: Tensor = self.module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out
