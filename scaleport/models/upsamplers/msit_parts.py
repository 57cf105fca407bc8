"""Modules of MSIT: convolutions that refine a frozen kernel, the multi-scale operator, queries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_OCTAVES = 10.0
# Where the shifted copies of channel c come from, as (dy, dx): one by c mod 4, and in the upper
# half of every 8 channels a second one.
_STRAIGHT = ((0, 1), (0, -1), (1, 0), (-1, 0))
_DIAGONAL = ((-1, 1), (1, -1), (1, 1), (-1, -1))


class RefinedConv(nn.Module):
    """Convolution with the kernel ``W + (c * W) (l W)`` made from a frozen kernel W.

    ``W`` is a buffer; per output and input channel a 3x3 filter ``c`` over the kernel's plane and
    a factor ``l`` are trained, and the bias. Filters start at zero: the network then starts as the
    one with plain convolutions whose ``weight`` and ``bias`` it loads by name.
    """

    weight: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel)
        assert plain.bias is not None
        self.register_buffer("weight", plain.weight.detach().clone())
        self.bias = nn.Parameter(plain.bias.detach().clone())
        pairs = in_channels * out_channels
        self.filter = nn.Parameter(torch.zeros(pairs, 1, 3, 3))
        self.factor = nn.Parameter(torch.ones(pairs, 1, 1, 1))

    def kernel(self) -> Tensor:
        """The kernel in effect: float[out, in, k, k]."""
        out_channels, in_channels, size = self.weight.shape[:3]
        planes = self.weight.reshape(1, out_channels * in_channels, size, size)
        filtered = functional.conv2d(planes, self.filter, padding=1, groups=planes.shape[1])
        change = filtered.reshape(self.weight.shape) * self.weight
        return self.weight + change * self.factor.reshape(out_channels, in_channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, in, H, W] to float[N, out, H, W]."""
        return functional.conv2d(x, self.kernel(), self.bias, padding=self.weight.shape[2] // 2)


def convolution(in_channels: int, out_channels: int, kernel: int, rim: bool) -> nn.Module:
    """A convolution of odd ``kernel`` with zero padding, plain or refined."""
    if rim:
        return RefinedConv(in_channels, out_channels, kernel)
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def shift_mask(channels: int) -> Tensor:
    """The shifts as one 3x3 kernel of zeros and ones per channel: float[channels, 1, 3, 3]."""
    mask = torch.zeros(channels, 1, 3, 3)
    for c in range(channels):
        taps = [_STRAIGHT[c % 4]] + ([_DIAGONAL[c % 4]] if c % 8 >= 4 else [])
        for dy, dx in taps:
            mask[c, 0, 1 + dy, 1 + dx] = 1
    return mask


class Mixing(nn.Module):
    """Grouped 1x1 convolution to twice the width, BatchNorm, GELU, 1x1 convolution back."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, 2 * width, 1, groups=groups)
        self.norm = nn.BatchNorm2d(2 * width)
        self.outer = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        out: Tensor = self.outer(functional.gelu(self.norm(self.inner(x))))
        return out


class MultiScaleOperator(nn.Module):
    """MSNO: shifted channels through convolutions of kernels 3, 5, 7, ..., mixed, as a gate.

    The shifts wrap around the borders.
    """

    mask: Tensor

    def __init__(self, width: int, branches: int, rim: bool) -> None:
        super().__init__()
        share = width // branches
        self.value = nn.Conv2d(width, width, 1, bias=False)
        self.token = nn.Conv2d(width, width, 1, bias=False)
        self.register_buffer("mask", shift_mask(width), persistent=False)
        self.branches = nn.ModuleList(
            convolution(share, share, 3 + 2 * g, rim) for g in range(branches)
        )
        self.mixing = Mixing(width, branches)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        token = self.token(x)
        wrapped = functional.pad(token, (1, 1, 1, 1), mode="circular")
        shifted = functional.conv2d(wrapped, self.mask, groups=token.shape[1])
        parts = shifted.chunk(len(self.branches), dim=1)
        scales = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        out: Tensor = self.project(self.value(x) * self.mixing(torch.cat(scales, dim=1)))
        return out


class QueryFeatures(nn.Module):
    """The map that queries and keys are read from: convolutions of kernels 3, 5, ..., mixed."""

    def __init__(self, width: int, branches: int, rim: bool) -> None:
        super().__init__()
        share = width // branches
        self.spread = nn.Conv2d(width, width, 1)
        self.branches = nn.ModuleList(
            convolution(share, share, 3 + 2 * g, rim) for g in range(branches)
        )
        self.mixing = Mixing(width, share)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        parts = self.spread(x).chunk(len(self.branches), dim=1)
        scales = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        out: Tensor = self.mixing(torch.cat(scales, dim=1))
        return out


class PositionBias(nn.Module):
    """Attention bias from sines and cosines of the distance between query and key.

    A distance of one LR pixel counts 2; frequencies are ``2^linspace(0, 10, n) - 1``. The input of
    ``linear`` is (sin y, sin x, cos y, cos x), n numbers each. Angles reach 7000 rad, where a
    float32 product is off by 2e-4: the whole pixels of a distance turn by constants instead, and
    the fraction's angle is reduced to one turn before anything is rounded.
    """

    coarse: Tensor
    rest: Tensor
    turns: Tensor
    rotation: Tensor

    def __init__(self, frequencies: int, heads: int, radius: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * frequencies, heads)
        # On the CPU and in float64 whatever the default is: these are constants of the method.
        exponents = torch.linspace(0, _OCTAVES, frequencies, dtype=torch.float64)
        angles = 2 * (2**exponents - 1)
        turns = angles / (2 * math.pi)
        coarse = (turns * 8).round() / 8
        steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
        fixed = steps[:, None] * angles
        for name, value in (
            ("coarse", coarse),
            ("rest", turns - coarse),
            ("turns", turns),
            ("rotation", torch.stack([fixed.cos(), fixed.sin()])),
        ):
            self.register_buffer(name, value, persistent=False)

    def angle(self, fraction: Tensor) -> Tensor:
        """Angles float[..., n] of distances float[...] of at most half a pixel, up to whole turns.

        Twelve bits of the fraction times twelve bits of the frequency are exact in float32.
        """
        fraction = fraction[..., None]
        top = torch.floor(fraction * 4096 + 0.5) / 4096
        turn = top * self.coarse.to(fraction.dtype)
        turn = turn - torch.floor(turn + 0.5)
        small = top * self.rest.to(fraction.dtype)
        return (turn + small + (fraction - top) * self.turns.to(fraction.dtype)) * (2 * math.pi)

    def codes(self, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """Sine and cosine, float[..., 2 radius + 1, n] each, of the distances to all keys."""
        angle = self.angle(fraction)[..., None, :]
        sine, cosine = angle.sin(), angle.cos()
        turn_cos, turn_sin = self.rotation.to(sine.dtype)
        return sine * turn_cos - cosine * turn_sin, cosine * turn_cos + sine * turn_sin

    def forward(self, down: Tensor, across: Tensor) -> Tensor:
        """Map distances float[N, Q] to the nearest pixel's centre to float[N, Q, keys, heads]."""
        (sin_y, cos_y), (sin_x, cos_x) = self.codes(down), self.codes(across)
        steps = sin_y.shape[-2]
        shape = (*down.shape, steps, steps, sin_y.shape[-1])
        parts = [
            sin_y[..., :, None, :].expand(shape),
            sin_x[..., None, :, :].expand(shape),
            cos_y[..., :, None, :].expand(shape),
            cos_x[..., None, :, :].expand(shape),
        ]
        out: Tensor = self.linear(torch.cat(parts, dim=-1))
        return out.flatten(-3, -2)
