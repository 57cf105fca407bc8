"""Encoders whose features a second network refines: those of Thera (arXiv 2311.17643).

Thera-Air takes the features of EDSR or RDN as they are, Thera-Plus refines them with ConvNeXt
blocks, Thera-Pro with the body of a SwinIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder
from scaleport.models.encoders.edsr import conv3
from scaleport.models.encoders.swinir import MLP, WindowAttention
from scaleport.models.encoders.windowed import Attention, WindowedEncoder
from scaleport.models.layers import LayerNorm, crop
from scaleport.models.registry import ENCODERS

_EDSR = {"name": "edsr"}


class RefinedEncoder(Encoder):
    """An encoder, and a network that refines its features.

    Args:
        base: configuration of the encoder; None for the EDSR baseline.
        label: name of this encoder, for messages.

    Raises:
        UsageError: if there is no such encoder, or it needs whole windows or the scale.
    """

    refiner: nn.Module

    def __init__(self, base: Mapping[str, Any] | None, label: str) -> None:
        super().__init__()
        options = dict(_EDSR if base is None else base)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"{label} needs base.name, the encoder that it refines")
        self.base: Encoder = ENCODERS.create(name, options)
        if self.base.padding or self.base.reads_scale:
            raise UsageError(f"{label} refines encoders of images of any size, not {name}")
        self.refused_formats = dict(self.base.refused_formats)
        self.export_refusal = self.base.export_refusal
        self.tiling, self.tile_step = self.base.tiling, self.base.tile_step
        self.rewrites = self.base.rewrites

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, out_channels, H, W]."""
        out: Tensor = self.refiner(self.base(x))
        return out

    def deploy(self) -> nn.Module:
        """The deploy forms of both, one after the other."""
        return nn.Sequential(self.base.deploy(), self.refiner)


class ConvNeXtBlock(nn.Module):
    """``x + fc2(gelu(fc1(norm(depthwise 3x3(x)))))``, without a bias of the convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.fc2(functional.gelu(self.fc1(y), approximate="tanh"))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class Projection(nn.Module):
    """Norm, and a linear layer to another width."""

    def __init__(self, width: int, wider: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, wider)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to float[N, wider, H, W]."""
        out: Tensor = self.linear(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return out


@ENCODERS.register("refined-convnext")
class RefinedConvNeXt(RefinedEncoder):
    """An encoder refined by ConvNeXt blocks; 2 368 352 parameters behind the EDSR baseline.

    Args:
        base: configuration of the encoder, by default the EDSR baseline.
        stages: width and number of the blocks of each stage. Where the width changes, a norm and a
            linear layer come between; the first width is that of the encoder.
    """

    float32_parts = "layer norms"

    def __init__(
        self,
        base: Mapping[str, Any] | None = None,
        stages: tuple[tuple[int, int], ...] | list[list[int]] = ((64, 6), (96, 7), (128, 3)),
    ) -> None:
        super().__init__(base, "refined-convnext")
        pairs = isinstance(stages, (tuple, list)) and all(
            isinstance(stage, (tuple, list))
            and len(stage) == 2
            and all(type(number) is int and number >= 1 for number in stage)
            for stage in stages
        )
        if not pairs or not stages:
            raise UsageError("refined-convnext needs stages of a width and a number of blocks")
        width = self.base.out_channels
        if stages[0][0] != width:
            raise UsageError(
                f"refined-convnext begins with the encoder's {width} channels, not {stages[0][0]}"
            )
        layers: list[nn.Module] = []
        for wider, blocks in stages:
            if wider != width:
                layers.append(Projection(width, wider))
            layers += [ConvNeXtBlock(wider) for _ in range(blocks)]
            width = wider
        self.refiner = nn.Sequential(*layers)
        self.out_channels = width


class SwinRefiner(WindowedEncoder):
    """The body of a SwinIR on features, with GELU by its tanh formula, and a last convolution."""

    def __init__(
        self,
        channels: int,
        width: int,
        depths: list[int] | tuple[int, ...],
        heads: int,
        window: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        def make() -> tuple[Attention, nn.Module]:
            mlp = MLP(width, int(width * mlp_ratio), approximate="tanh")
            return WindowAttention(width, heads, window), mlp

        label = "refined-swin"
        super().__init__(
            label, width, depths, heads, window, drop_path, make, window, in_channels=channels
        )
        self.last = conv3(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, channels, H, W], of any size, to the same shape."""
        height, width = x.shape[2], x.shape[3]
        y = self.last(super().forward(self.padding.pad(x)))
        return crop(functional.leaky_relu(y, 0.01), height, width)


@ENCODERS.register("refined-swin")
class RefinedSwin(RefinedEncoder):
    """An encoder refined by the body of a SwinIR; 5 716 970 parameters behind the EDSR baseline.

    The features are continued to whole windows by reflection, and cut again. What continues the
    image itself, ``padding`` of a SwinIR, has no part in it.

    Args:
        base: configuration of the encoder, by default the EDSR baseline.
        width: channels of the SwinIR; its features have those of the encoder again.
        depths: blocks of each group; every other block has shifted windows.
        heads: attention heads.
        window: side of a window in pixels, even.
        mlp_ratio: hidden channels of the MLPs by ``width``.
        drop_path: stochastic depth in training.
    """

    float32_parts = "layer norms and softmax"

    def __init__(
        self,
        base: Mapping[str, Any] | None = None,
        width: int = 180,
        depths: list[int] | tuple[int, ...] = (7, 6),
        heads: int = 6,
        window: int = 8,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__(base, "refined-swin")
        WindowedEncoder.check("refined-swin", width, depths, heads, mlp_ratio)
        if window < 2 or window % 2:
            raise UsageError("refined-swin needs an even window of at least 2")
        channels = self.base.out_channels
        self.refiner = SwinRefiner(channels, width, depths, heads, window, mlp_ratio, drop_path)
        self.out_channels = channels
        self.tiling, self.tile_step = WindowedEncoder.tiling, window
        self.rewrites = (*self.base.rewrites, *WindowedEncoder.rewrites)

    def deploy(self) -> nn.Module:
        """The deploy forms of both, one after the other."""
        assert isinstance(self.refiner, SwinRefiner)
        return nn.Sequential(self.base.deploy(), self.refiner.deploy())
