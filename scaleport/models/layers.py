"""Pieces that several networks share, written so that no size is baked into a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import Padding


def convolutions_channels_last(module: nn.Module) -> None:
    """Lay the weights of convolutions out with channels last, in place.

    Convolutions in half precision are up to twice as fast so, on GPUs and on processors. Other
    tensors stay: those of rank 5 have no such order, and buffers that are shared may not change.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def widened(x: Tensor) -> Tensor:
    """``x`` in float32 if it is half precision, else as it is.

    Sums over many channels or positions overflow or drown in float16.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension, computed in float32 at least."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map float[..., width] to the same shape and type."""
        wide = widened(x)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return functional.layer_norm(wide, weight.shape, weight, bias, self.eps).to(x.dtype)


class ChannelNorm(LayerNorm):
    """The same over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape and type."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension, computed in float32 at least."""
    return torch.softmax(widened(x), dim=-1).to(x.dtype)


def count_windows(length: int, window: int) -> int:
    """How many windows cover a length."""
    return (length + window - 1) // window


def pad_to_windows(x: Tensor, window: int) -> Tensor:
    """Pad float[N, C, H, W] at the right and bottom, by reflection, to multiples of ``window``."""
    return Padding(window).pad(x)


def split_windows(x: Tensor, window: int, down: int, across: int) -> Tensor:
    """Map float[N, down * window, across * window, C] to float[N * down * across, window**2, C]."""
    n, c = x.shape[0], x.shape[3]
    # Rank 5 at most, for Core ML: batch and rows of windows share a dimension.
    x = x.reshape(n * down, window, across, window, c).permute(0, 2, 1, 3, 4)
    return x.reshape(n * down * across, window * window, c)


def join_windows(x: Tensor, n: int, window: int, down: int, across: int) -> Tensor:
    """The inverse of :func:`split_windows` for a batch of ``n``."""
    c = x.shape[2]
    x = x.reshape(n * down, across, window, window, c).permute(0, 2, 1, 3, 4)
    return x.reshape(n, down * window, across * window, c)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of float[N, C, H, W], undoing :func:`pad_to_windows`.

    A slice would make a graph ask how the two lengths relate, and answer for the traced size only.
    """
    rows = torch.arange(height, device=x.device, dtype=torch.int32)
    cols = torch.arange(width, device=x.device, dtype=torch.int32)
    return x.index_select(2, rows).index_select(3, cols)
