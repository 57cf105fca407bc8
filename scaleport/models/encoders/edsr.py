"""EDSR: residual convolutions without batch normalisation (Lim et al. 2017, arXiv 1707.02921)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder
from scaleport.models.registry import ENCODERS


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution, stride 1, zero padding 1, with bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """``x + r * conv(relu(conv(x)))``."""

    def __init__(self, width: int, residual_scale: float) -> None:
        super().__init__()
        self.conv1 = conv3(width, width)
        self.conv2 = conv3(width, width)
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = self.conv2(functional.relu(self.conv1(x)))
        if self.residual_scale != 1:
            y = y * self.residual_scale
        out: Tensor = x + y
        return out


@ENCODERS.register("edsr")
class EDSR(Encoder):
    """EDSR body without its upsampler: ``head``, ``blocks`` residual blocks, ``tail``, long skip.

    The baseline has ``width=64, blocks=16`` (1 220 416 parameters); the large one 256, 32 and
    ``residual_scale=0.1``.
    """

    def __init__(self, width: int = 64, blocks: int = 16, residual_scale: float = 1.0) -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise UsageError(f"edsr needs width and blocks of at least 1, got {width}, {blocks}")
        self.out_channels = width
        self.head = conv3(3, width)
        self.body = nn.ModuleList(ResidualBlock(width, residual_scale) for _ in range(blocks))
        self.tail = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = shallow
        for block in self.body:
            y = block(y)
        out: Tensor = shallow + self.tail(y)
        return out
