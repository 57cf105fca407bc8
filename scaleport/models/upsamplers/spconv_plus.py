"""SPConv+: expand, shuffle, refine; the tail of EDSR and of most networks of one fixed scale.

Source: Lim et al. 2017, arXiv 1707.02921; named so in arXiv 2408.09674.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    IMAGE,
    UPSCALED,
    Constants,
    DeployForm,
    Features,
    Normalisation,
    Stage,
    Upsampler,
    border_dtype,
    image_constant,
)
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import EncodeStage
from scaleport.tensor import TensorSpec

_REACH = 2
"""LR pixels that an output pixel looks away from its own: 1 + 1/2 + 1/4 + ..., rounded up."""


class Tail(nn.Module):
    """Convolution and pixel shuffle, once per step, then a convolution to RGB. No activations."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        steps = [scale] if scale == 3 else [2] * (scale.bit_length() - 1)
        self.factors = steps
        self.steps = nn.ModuleList(nn.Conv2d(width, width * r * r, 3, padding=1) for r in steps)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, rows: Tensor | None = None, cols: Tensor | None = None) -> Tensor:
        """Map float[N, width, H, W] to float[N, 3, s * H, s * W].

        ``rows`` float[N, 1, H, 1] and ``cols`` float[N, 1, 1, W] of ones and zeros hide pixels as
        if the image did not reach there.
        """
        for conv, factor in zip(self.steps, self.factors, strict=True):
            x = conv(x)
            # What lies beyond the image is zero at every resolution, not a response to zeros.
            if rows is not None:
                x = x * rows
                rows = rows.repeat_interleave(factor, dim=2)
            if cols is not None:
                x = x * cols
                cols = cols.repeat_interleave(factor, dim=3)
            x = functional.pixel_shuffle(x, factor)
        out: Tensor = self.last(x)
        return out


class Entry(nn.Module):
    """What transformer networks put before the tail: a convolution and a leaky ReLU."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, C, H, W] to float[N, width, H, W]."""
        return functional.leaky_relu(self.conv(x), 0.01)


@UPSAMPLERS.register("spconv-plus")
class SPConvPlus(Upsampler):
    """``conv3(C -> 4 C)`` and a shuffle by 2, as often as it takes, then ``conv3(C -> 3)``.

    x3 is one step of ``conv3(C -> 9 C)``. Parameters at C = 64: 149 443 (x2), 334 083 (x3), 297 155
    (x4).

    Args:
        in_channels: encoder width C.
        scale: the fixed scale: 2, 3, 4 or 8.
        width: where above 0, ``leaky_relu(conv3(C -> width))`` comes first, as in SwinIR and its
            descendants, where it is 64.
    """

    family: ClassVar[Literal["lattice", "query"]] = "lattice"
    rewrites: tuple[str, ...] = (
        "tail collapsed to one 5x5 convolution, the border by the tail itself",
    )

    def __init__(self, in_channels: int, scale: int, width: int = 0) -> None:
        super().__init__()
        if isinstance(scale, bool) or scale not in (2, 3, 4, 8):
            raise UsageError(f"spconv-plus needs a scale of 2, 3, 4 or 8, got {scale!r}")
        if width < 0:
            raise UsageError(f"spconv-plus needs a width of at least 0, got {width}")
        self.native_scales = (scale,)
        self.width = width or in_channels
        self.entry = Entry(in_channels, width) if width else nn.Identity()
        self.tail = Tail(self.width, scale)

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, s * H, s * W]."""
        del grid, constants
        out: Tensor = self.tail(self.entry(features["feature"]))
        return out

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: one 5x5 convolution and one shuffle; the tail itself along the border."""
        (scale,) = self.native_scales
        feature = TensorSpec("feature", "float32", ("N", self.width, "H", "W"))
        return DeployForm(
            encode=Stage(
                "encode", EncodeStage(encoder, norm, dtype, self.entry), (IMAGE,), (feature,)
            ),
            render=None,
            bound={
                scale: Stage(
                    f"render_x{scale}",
                    CollapsedTail(self.tail, scale, norm, dtype),
                    (feature,),
                    (UPSCALED,),
                )
            },
        )


def collapsed(tail: Tail, scale: int) -> tuple[Tensor, Tensor]:
    """The one convolution that a tail is, away from the border.

    Returns:
        Kernel float[3 s^2, width, 5, 5] and bias float[3 s^2], before a pixel shuffle.
    """
    tail = copy.deepcopy(tail).double()
    width = tail.steps[0].in_channels
    assert isinstance(width, int)
    side, middle = 4 * _REACH + 1, 2 * _REACH
    impulses = torch.zeros(width + 1, width, side, side, dtype=torch.float64)
    impulses[range(width), range(width), middle, middle] = 1  # the last one stays zero
    with torch.no_grad():
        seen = functional.pixel_unshuffle(tail(impulses), scale)
    bias = seen[-1, :, middle, middle]
    near = slice(middle - _REACH, middle + _REACH + 1)
    response = seen[:-1, :, near, near] - bias[:, None, None]
    # An output pixel reads at +d what an input pixel sends to -d.
    return response.flip(-1, -2).transpose(0, 1).contiguous(), bias


class CollapsedTail(nn.Module):
    """SPConv+ as one convolution, exact up to the border.

    The tail has no activations, so away from the border it is one 5x5 convolution at LR size and a
    shuffle: 75 s^2 C multiply-adds per LR pixel, an 8th (x2, x3) or a 10th (x4) of the tail's.
    Near the border it is not, as the tail's later convolutions meet zeros beyond the image where
    the collapsed one continues the response of the earlier: the outermost output pixels differ (1
    at x2 and x3, 3 at x4, 7 at x8), always within the outermost LR pixel. Those are therefore made
    by the tail itself from a strip of 3 LR pixels along each side, which is all that they see, and
    put in the place of the convolution's; a mask stands for the border where an image is narrower
    than a strip.
    """

    def __init__(self, tail: Tail, scale: int, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        kernel, bias = collapsed(tail, scale)
        self.scale = scale
        self.dtype = dtype
        exact = tail.last.weight.dtype
        self.conv = nn.Conv2d(kernel.shape[1], len(kernel), 5, padding=_REACH, dtype=exact)
        self.tail = tail
        mean = image_constant(norm.mean, exact).flatten()
        with torch.no_grad():
            self.conv.weight.copy_(kernel * norm.std)
            assert self.conv.bias is not None and tail.last.bias is not None
            self.conv.bias.copy_(bias * norm.std + mean.repeat_interleave(scale * scale))
            tail.last.weight.mul_(norm.std)
            tail.last.bias.mul_(norm.std).add_(mean)
        self.to(dtype)

    def _ends(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The first and the last LR row or column of the output: float[N, 3 s^2, 1, W] each."""
        length = x.shape[axis]
        reach = torch.arange(_REACH + 1, device=x.device, dtype=torch.int32)
        last = torch.full_like(reach, length - 1)
        strips, masks = [], []
        for place in (reach, last - _REACH + reach):
            inside = torch.minimum(torch.maximum(place, torch.zeros_like(place)), last)
            strips.append(x.index_select(axis, inside))
            shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
            masks.append((place == inside).to(x.dtype).reshape(shape))
        results = []
        for strip, mask, end in zip(strips, masks, (0, _REACH), strict=True):
            rows, cols = (mask, None) if axis == 2 else (None, mask)
            made = functional.pixel_unshuffle(self.tail(strip * mask, rows, cols), self.scale)
            results.append(made[:, :, end : end + 1] if axis == 2 else made[..., end : end + 1])
        return results[0], results[1]

    def forward(self, feature: Tensor) -> Tensor:
        """Map float32[N, width, H, W] to float32[N, 3, s * H, s * W]."""
        x = feature.to(self.dtype)
        y = self.conv(x)
        for axis in (2, 3):
            first, last = self._ends(x, axis)
            length = x.shape[axis]
            place = torch.arange(length, device=x.device, dtype=torch.int32)
            end = torch.full_like(place, length - 1)
            # The strips' rows are appended and picked up in place of those at both ends.
            picked = torch.where(place == end, end + 2, place)
            picked = torch.where(place == 0, end + 1, picked)
            y = torch.cat([y, first, last], dim=axis).index_select(axis, picked)
        return functional.pixel_shuffle(y, self.scale).to(border_dtype(self.dtype))
