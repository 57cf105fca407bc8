"""SMFANet+: self-modulated feature aggregation in a light convolutional network (ECCV 2024).

Zheng et al., "SMFANet: A Lightweight Self-Modulation Feature Aggregation Network for Efficient
Image Super-Resolution".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder, Tiling
from scaleport.models.encoders.edsr import conv3
from scaleport.models.layers import widened
from scaleport.models.registry import ENCODERS

CELL = 8
"""Side of the cells that are pooled, in pixels, before it is stretched to fill the image."""

_LONGEST = 2 * CELL - 1


def count_cells(length: int) -> int:
    """How many cells an axis has: ``length // 8``, at least one."""
    whole = length // CELL
    # Not max(): a comparison would fix in a graph whether the image is large or small.
    return whole + 1 // (whole + 1)


def cell_rows(length: int, like: Tensor) -> Tensor:
    """The rows of every cell, int32[cells * 15]; the last is repeated where they are fewer.

    Cell ``i`` of ``n`` reaches from ``floor(i length / n)`` to ``ceil((i + 1) length / n)``; less
    than 8 pixels are left over, so none is longer than 15.
    """
    cells = count_cells(length)
    cell = torch.arange(cells, device=like.device, dtype=torch.int32)
    number, extent = torch.full_like(cell, cells), torch.full_like(cell, length)
    first = torch.floor_divide(cell * extent, number)
    last = torch.floor_divide((cell + 1) * extent + number - 1, number) - 1
    step = torch.arange(_LONGEST, device=like.device, dtype=torch.int32)
    return torch.minimum(first[:, None] + step[None, :], last[:, None]).reshape(cells * _LONGEST)


def row_cells(length: int, like: Tensor) -> Tensor:
    """The cell that every row takes its value from, int32[length]."""
    row = torch.arange(length, device=like.device, dtype=torch.int32)
    return torch.floor_divide(row * count_cells(length), torch.full_like(row, length))


def pool_cells(x: Tensor) -> Tensor:
    """Maximum of every cell of float[N, C, H, W], cells of neighbours overlapping if need be."""
    n, c, height, width = x.shape
    down, across = count_cells(height), count_cells(width)
    x = x.index_select(2, cell_rows(height, x)).reshape(n, c * down, _LONGEST, width).amax(dim=2)
    x = x.index_select(2, cell_rows(width, x)).reshape(n, c * down, across, _LONGEST).amax(dim=3)
    return x.reshape(n, c, down, across)


def variance(x: Tensor) -> Tensor:
    """Unbiased variance over the pixels, float[N, C, 1, 1]; 0 if there is only one pixel."""
    wide = widened(x)
    centred = wide - wide.mean(dim=(2, 3), keepdim=True)
    total = (centred * centred).sum(dim=(2, 3), keepdim=True)
    others = torch.full_like(total, x.shape[2] * x.shape[3] - 1)
    return (total / torch.maximum(others, torch.full_like(total, 1))).to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """float[N, C, H, W] with every pixel scaled to length 1; zeros stay zeros."""
    wide = widened(x)
    length = (wide * wide).sum(dim=1, keepdim=True).sqrt()
    return (wide / torch.maximum(length, torch.full_like(length, 1e-12))).to(x.dtype)


class Modulation(nn.Module):
    """Half of the channels gated by a coarse map of their own, half through a local MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.split = nn.Conv2d(width, 2 * width, 1)
        self.coarse = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.alpha = nn.Parameter(torch.ones(1, width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gate = nn.Conv2d(width, width, 1)
        self.local1 = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
        self.local2 = nn.Conv2d(2 * width, 2 * width, 1)
        self.local3 = nn.Conv2d(2 * width, width, 1)
        self.fuse = nn.Conv2d(width, width, 1)
        self.frozen = False

    def freeze(self) -> None:
        """Turn into the deploy form: ``alpha`` in the weights, two biases in one."""
        assert self.coarse.bias is not None
        assert self.local1.bias is not None and self.local2.bias is not None
        with torch.no_grad():
            self.coarse.weight.mul_(self.alpha.reshape(-1, 1, 1, 1))
            self.coarse.bias.mul_(self.alpha.flatten())
            self.local2.bias.add_(self.local2.weight[:, :, 0, 0] @ self.local1.bias)
        self.local1.bias = None
        del self.alpha
        self.frozen = True

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        height, width = x.shape[2], x.shape[3]
        near, far = self.split(x).chunk(2, dim=1)
        coarse = self.coarse(pool_cells(far))
        if not self.frozen:
            coarse = coarse * self.alpha
        gate = functional.gelu(self.gate(coarse + variance(far) * self.beta))
        # The map is stretched last along rows: the shorter way to gather is the cheaper one.
        gate = gate.index_select(3, row_cells(width, x)).index_select(2, row_cells(height, x))
        near = self.local3(functional.gelu(self.local2(self.local1(near))))
        out: Tensor = self.fuse(far * gate + near)
        return out


class PartialFFN(nn.Module):
    """``conv(GELU(conv(x)))``, a quarter of the hidden channels through a 3x3 convolution."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.part = hidden // 4
        self.up = nn.Conv2d(width, hidden, 1)
        self.near = conv3(self.part, self.part)
        self.down = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = functional.gelu(self.up(x))
        near = functional.gelu(self.near(y[:, : self.part]))
        out: Tensor = self.down(torch.cat([near, y[:, self.part :]], dim=1))
        return out


class Block(nn.Module):
    """Modulation, then the FFN, each of unit pixels and added to its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.modulation = Modulation(width)
        self.ffn = PartialFFN(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        x = x + self.modulation(unit(x))
        out: Tensor = x + self.ffn(unit(x))
        return out


@ENCODERS.register("smfanet-plus")
class SMFANet(Encoder):
    """SMFANet+ without its upsampler: ``head``, blocks, long skip.

    475 104 parameters with the published defaults. Any size works, where the published network
    needs at least 8 x 8 pixels: a shorter axis is one cell.

    Args:
        width: channels.
        blocks: number of blocks.
        ratio: hidden channels of the FFNs by ``width``.
    """

    tiling = Tiling("approximate", "cells and variances are those of a tile")
    float32_parts = "norms, averages and variances"
    rewrites: tuple[str, ...] = ("factors folded into convolutions",)

    def __init__(self, width: int = 48, blocks: int = 12, ratio: float = 2.0) -> None:
        super().__init__()
        hidden = int(width * ratio)
        if width < 1 or blocks < 1 or hidden < 4:
            raise UsageError(
                "smfanet-plus needs width and blocks of at least 1 and 4 hidden channels"
            )
        self.out_channels = width
        self.head = conv3(3, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = shallow
        for block in self.blocks:
            y = block(y)
        out: Tensor = shallow + y
        return out

    def deploy(self) -> nn.Module:
        """The same network with constants folded into the weights."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.modulation.freeze()
        return self
