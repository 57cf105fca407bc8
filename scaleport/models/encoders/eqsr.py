"""EQSR: window attention behind convolutions that adapt to the requested size.

Source: Wang et al., "Deep Arbitrary-Scale Image Super-Resolution via Scale-Equivariance Pursuit"
(CVPR 2023), with the details of the authors' code. The upsampler of the paper is ``kriging``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import CELL, Constants, Stage, Tiling, border_dtype
from scaleport.models.encoders.swinir import MLP, WindowAttention
from scaleport.models.encoders.windowed import (
    Attention,
    BiasedAttention,
    Block,
    Group,
    WindowedEncoder,
)
from scaleport.models.layers import (
    LayerNorm,
    join_windows,
    split_windows,
    widened,
)
from scaleport.models.octaves import Octaves
from scaleport.models.registry import ENCODERS
from scaleport.tensor import TensorSpec

TRAINING_PATCH = 48
"""Side of an LR patch in training: the published input, 2 / Ho, is then 2 / (48 s)."""
_EPS = 1e-8


class ModulatedConv(nn.Module):
    """3x3 convolution whose kernel follows a code: scaled per input, normalised per output.

    Args:
        width: channels in and out.
        code: length of the code.
    """

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.style = nn.Linear(code, width)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape, for a code float[1, L]."""
        kernel = self.weight * (1 + self.style(code)).reshape(1, -1, 1, 1)
        norm = (kernel * kernel).sum(dim=(1, 2, 3), keepdim=True) + _EPS
        return functional.conv2d(x, kernel * norm.rsqrt(), padding=1)


class FactoredConv(nn.Module):
    """The same with one kernel for all codes: gains before and after the convolution."""

    def __init__(self, conv: ModulatedConv) -> None:
        super().__init__()
        self.weight = conv.weight

    def forward(self, x: Tensor, gains: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape, for the gains float[2, width]."""
        before, after = gains[0].reshape(1, -1, 1, 1), gains[1].reshape(1, -1, 1, 1)
        return functional.conv2d(x * before, self.weight, padding=1) * after


class Gains(nn.Module):
    """``prepare`` of EQSR as a graph: from the output size to the gains of all convolutions.

    A kernel scaled per input channel by ``1 + g`` and divided by the root of the sum of its squares
    is the plain kernel behind and before a scaling of the channels.
    """

    power: Tensor
    style_weight: Tensor
    style_bias: Tensor

    def __init__(self, encoder: EQSR) -> None:
        super().__init__()
        convs = [part for part in encoder.modules() if isinstance(part, ModulatedConv)]
        self.octaves = Octaves(encoder.octave_count)
        self.scale_input = encoder.scale_input
        power = torch.stack([conv.weight.square().sum(dim=(2, 3)) for conv in convs])
        self.register_buffer("power", power.detach().clone())
        for name in ("weight", "bias"):
            value = torch.cat([getattr(conv.style, name) for conv in convs]).detach().clone()
            self.register_buffer(f"style_{name}", value)

    def forward(self, value: Tensor) -> Tensor:
        """Map ``cell`` or ``scale`` float32[2] to the gains float32[2 * groups, width]."""
        code = self.octaves(read_size(value, self.scale_input), self.power.dtype)
        gain = 1 + functional.linear(code, self.style_weight, self.style_bias)
        gain = gain.reshape(self.power.shape[0], 1, self.power.shape[2])
        norm = (self.power * (gain * gain)).sum(dim=2) + _EPS
        gains = torch.cat([gain, norm.rsqrt()[:, None, :]], dim=1)
        out = gains.reshape(2 * self.power.shape[0], self.power.shape[2])
        return out.to(border_dtype(self.power.dtype))


def read_size(value: Tensor, scale_input: str) -> Tensor:
    """The number float32[1] that EQSR adapts to, from ``cell`` or ``scale`` float32[2]."""
    return value[0:1] if scale_input == "size" else 2 / (value[0:1] * TRAINING_PATCH)


class Adapter(nn.Module):
    """Adaptive feature extractor: 1x1, a modulated 3x3 and a 1x1 with channel attention."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.norm1 = LayerNorm(width)
        self.conv: nn.Module = ModulatedConv(width, code)
        self.norm2 = LayerNorm(width)
        self.squeeze = nn.Linear(width, width // 4, bias=False)
        self.excite = nn.Linear(width // 4, width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map float[N, H, W, width] to the same shape."""
        x = self.mix(x)
        y = functional.gelu(self.norm1(x)).permute(0, 3, 1, 2)
        x = x + self.conv(y, modulation).permute(0, 2, 3, 1)
        y = functional.gelu(self.norm2(x))
        mean = widened(y).mean(dim=(1, 2)).to(y.dtype)
        gate = torch.sigmoid(self.excite(functional.silu(self.squeeze(mean))))
        out: Tensor = x + self.project(y * gate[:, None, None, :])
        return out


def split_overlapping(x: Tensor, window: int, reach: int, down: int, across: int) -> Tensor:
    """Windows and their surroundings, zero beyond the map.

    Args:
        x: float[N, down * window, across * window, C].
        window: side of a window.
        reach: by how much more is taken on every side, at most half a window.
        down: windows along the height.
        across: windows along the width.

    Returns:
        float[N * down * across, (window + 2 * reach)^2, C], in the order of ``split_windows``.
    """
    n, c = x.shape[0], x.shape[3]
    wide, rest = window + 2 * reach, window - reach
    x = functional.pad(x, (0, 0, reach, rest, reach, rest))
    # A wide window is one stretch of the padded axis, and the beginning of the next.
    x = x.reshape(n, down + 1, window, (across + 1) * window * c)
    x = torch.cat([x[:, :-1], x[:, 1:, : 2 * reach]], dim=2)
    x = x.reshape(n * down * wide, across + 1, window, c)
    x = torch.cat([x[:, :-1], x[:, 1:, : 2 * reach]], dim=2)
    # Rank 5 at most, for Core ML: batch and rows of windows share a dimension.
    x = x.reshape(n * down, wide, across, wide * c).permute(0, 2, 1, 3)
    return x.reshape(n * down * across, wide * wide, c)


def overlapping_places(window: int, wide: int) -> Tensor:
    """Row of the table for every pair of a query and a key, as int64[window^2, wide^2].

    The published index is negative for some pairs and counts from the table's end.
    """
    apart = torch.arange(wide)[None, :] - torch.arange(window)[:, None] + window - wide + 1
    side = window + wide - 1
    rows = apart[:, None, :, None] * side + apart[None, :, None, :]
    return torch.remainder(rows.reshape(window**2, wide**2), side**2)


class OverlapBlock(BiasedAttention):
    """Windows that attend to themselves and to what surrounds them, then an MLP.

    Keys beyond the map take part with logits that are the bias alone.
    """

    def __init__(self, width: int, heads: int, window: int, hidden: int) -> None:
        reach = window // 4
        wide = window + 2 * reach
        places = overlapping_places(window, wide)
        super().__init__(width, heads, places, (window + wide - 1) ** 2)
        self.window, self.reach = window, reach
        self.norm1 = LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.norm2 = LayerNorm(width)
        self.mlp = MLP(width, hidden)

    def scaled_rows(self) -> tuple[Tensor, ...]:
        """Rows of the queries."""
        width = self.qkv.in_features
        return self.qkv.weight[:width], self.qkv.bias[:width]

    def forward(self, x: Tensor, counts: tuple[int, int, int]) -> Tensor:
        """Map float[N, H, W, width], a map of whole windows, to the same shape.

        ``counts`` is N, and how many windows there are down and across.
        """
        n, down, across = counts
        width = x.shape[3]
        qkv = self.qkv(self.norm1(x))
        inner = split_windows(qkv[:, :, :, :width], self.window, down, across)
        outer = qkv[:, :, :, width:]
        outer = split_overlapping(outer, self.window, self.reach, down, across)
        b, t, k = inner.shape[0], inner.shape[1], outer.shape[1]
        size = width // self.heads
        query = inner.reshape(b, t, self.heads, size).transpose(1, 2)
        pair = outer.reshape(b, k, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        y = self.attend(query, pair[0], pair[1], None)
        x = x + join_windows(y, n, self.window, down, across)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


@ENCODERS.register("eqsr")
class EQSR(WindowedEncoder):
    """EQSR without its upsampler, to the long skip around the deep features.

    Each group: an adaptive feature extractor, ``depth`` blocks of (shifted) window attention, one
    with overlapping windows, a 3x3 convolution, and the group's input again. The features depend on
    the requested scale. With ``octaves=40`` it has 12 407 400 parameters; with 12, 60 480 fewer.

    The published network reads the height of the output, 2 / Ho, through 40 octaves: beyond the
    sizes of its training patches, and a hash of the height at high octaves. A network of your own
    is better off with the scale, 2 / (48 s_y), and 12 octaves; both are the same in training on LR
    patches of 48.

    Args:
        width: channels, a multiple of 4 and of ``heads``.
        depths: blocks of window attention per group, without the overlapping one that the authors
            count too.
        heads: attention heads.
        window: side of a window in pixels, a multiple of 4.
        mlp_ratio: hidden channels of the MLPs by ``width``.
        octaves: sines and cosines of the scale's code.
        scale_input: ``scale`` or ``size``, what the code is made of.
        drop_path: stochastic depth in training.
    """

    reads_scale: ClassVar[bool] = True
    tiling = Tiling("approximate", "windows lie as the tile does, channel attention pools over it")
    float32_parts = "layer norms, softmax and averages over the image"
    rewrites: tuple[str, ...] = (
        "modulated kernels as gains around one kernel",
        "position biases gathered, scale folded in",
    )

    def __init__(
        self,
        width: int = 180,
        depths: list[int] | tuple[int, ...] = (4, 4, 4, 4, 4, 4),
        heads: int = 6,
        window: int = 16,
        mlp_ratio: float = 2.0,
        octaves: int = 12,
        scale_input: str = "scale",
        drop_path: float = 0.1,
    ) -> None:
        self.check("eqsr", width, depths, heads, mlp_ratio)
        if width % 4 or window < 4 or window % 4:
            raise UsageError("eqsr needs a width and a window that are multiples of 4")
        if scale_input not in ("scale", "size"):
            raise UsageError(f"eqsr reads scale_input 'scale' or 'size', not {scale_input!r}")
        hidden = int(width * mlp_ratio)

        def make() -> tuple[Attention, nn.Module]:
            return WindowAttention(width, heads, window), MLP(width, hidden)

        super().__init__("eqsr", width, depths, heads, window, drop_path, make, window)
        self.octave_count = octaves
        self.octaves = Octaves(octaves)
        self.scale_input = scale_input
        code = self.octaves.width
        self.adapters = nn.ModuleList(Adapter(width, code) for _ in depths)
        self.overlaps = nn.ModuleList(OverlapBlock(width, heads, window, hidden) for _ in depths)
        for module in (*self.adapters.modules(), *self.overlaps.modules()):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The published rates count the overlapping blocks, which always run.
        rates = iter(torch.linspace(0, drop_path, sum(depths) + len(depths)).tolist())
        for group in self.groups:
            assert isinstance(group, Group)
            for block in group.blocks:
                assert isinstance(block, Block)
                block.drop_path.probability = next(rates)
            next(rates)

    def prepare(self, grid: Grid) -> Constants:
        """Training form: ``modulation``, the code of the size or scale, float[groups, L]."""
        value = torch.from_numpy(grid.cell if self.scale_input == "size" else grid.scale)
        value = read_size(value.to(self.head.weight.device), self.scale_input)
        code = self.octaves(value, self.head.weight.dtype)
        return {"modulation": code.expand(len(self.groups), -1)}

    def deploy_prepare(self) -> Stage:
        """Deploy form of :meth:`prepare`: the gains of every modulated convolution."""
        source = CELL if self.scale_input == "size" else TensorSpec("scale", "float32", (2,))
        made = TensorSpec("modulation", "float32", (2 * len(self.groups), self.out_channels))
        words = "all of it: gains are made once per output size"
        return Stage("prepare", Gains(self), (source,), (made,), words)

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Map float[N, 3, H, W], of whole windows, and what ``prepare`` made to features.

        They are float[N, width, H, W].
        """
        if modulation is None:
            raise UsageError("eqsr depends on the scale: it needs what prepare made")
        n, height, width = x.shape[0], x.shape[2], x.shape[3]
        down, across = height // self.window, width // self.window
        counts = (n, down, across)
        shallow = self.head(x)
        mask = self.mask(n, down, across)
        y = self.head_norm(shallow.permute(0, 2, 3, 1))
        parts = modulation.chunk(len(self.groups))
        rows = zip(self.groups, self.adapters, self.overlaps, parts, strict=True)
        for group, adapter, overlap, part in rows:
            assert isinstance(group, Group)
            z = adapter(y, part)
            for block in group.blocks:
                z = block(z, counts, mask)
            z = group.tail(overlap(z, counts).permute(0, 3, 1, 2))
            y = y + z.permute(0, 2, 3, 1)
        deep = self.tail(self.norm(y).permute(0, 3, 1, 2))
        out: Tensor = shallow + deep
        return out

    def deploy(self) -> nn.Module:
        """The same with gains around plain convolutions, biases gathered and scales folded in."""
        super().deploy()
        for adapter, overlap in zip(self.adapters, self.overlaps, strict=True):
            assert isinstance(adapter, Adapter) and isinstance(overlap, OverlapBlock)
            assert isinstance(adapter.conv, ModulatedConv)
            adapter.conv = FactoredConv(adapter.conv)
            overlap.freeze()
        return self
