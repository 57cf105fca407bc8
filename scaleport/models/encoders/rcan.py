"""RCAN: residual groups of blocks with channel attention (Zhang et al. 2018, arXiv 1807.02758)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder, Tiling
from scaleport.models.encoders.edsr import conv3
from scaleport.models.layers import widened
from scaleport.models.registry import ENCODERS


class ChannelAttention(nn.Module):
    """``x * sigmoid(W relu(V mean(x)))`` with the mean over all pixels."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, hidden, 1)
        self.up = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        pooled = widened(x).mean(dim=(2, 3), keepdim=True).to(x.dtype)
        return x * torch.sigmoid(self.up(functional.relu(self.down(pooled))))


class AttentionBlock(nn.Module):
    """``x + attention(conv(relu(conv(x))))``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, width)
        self.conv2 = conv3(width, width)
        self.attention = ChannelAttention(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        out: Tensor = x + self.attention(self.conv2(functional.relu(self.conv1(x))))
        return out


class ResidualGroup(nn.Module):
    """Blocks, a convolution, and the input again."""

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(width, hidden) for _ in range(blocks))
        self.tail = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = x
        for block in self.blocks:
            y = block(y)
        out: Tensor = x + self.tail(y)
        return out


@ENCODERS.register("rcan")
class RCAN(Encoder):
    """RCAN without its upsampler: ``head``, residual groups, ``tail``, long skip.

    15 295 200 parameters with the published defaults. A deploy form of its own would gain nothing:
    what the attention adds to the convolutions is a mean and a product.

    Args:
        width: channels.
        groups: residual groups.
        blocks: blocks in each.
        reduction: ``width`` by the hidden channels of the channel attention.
        shift: whether a trained colour is added to the image, three parameters more; imported
            weights whose mean shift was trained along have it.
    """

    tiling = Tiling("approximate", "channel attention averages over a tile")
    float32_parts = "averages over the image"

    def __init__(
        self,
        width: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        shift: bool = False,
    ) -> None:
        super().__init__()
        if min(width, groups, blocks, reduction) < 1 or width < reduction:
            raise UsageError(
                "rcan needs groups, blocks and reduction of at least 1 and a width of at least "
                "reduction"
            )
        self.out_channels = width
        self.shift = nn.Parameter(torch.zeros(3)) if shift else None
        self.head = conv3(3, width)
        hidden = width // reduction
        self.groups = nn.ModuleList(ResidualGroup(width, hidden, blocks) for _ in range(groups))
        self.tail = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        if self.shift is not None:
            # Not in the head's bias: the border of zeros is not shifted.
            x = x + self.shift.reshape(1, 3, 1, 1)
        shallow = self.head(x)
        y = shallow
        for group in self.groups:
            y = group(y)
        out: Tensor = shallow + self.tail(y)
        return out
