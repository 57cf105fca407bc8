"""RDN: residual dense blocks (Zhang et al. 2018, arXiv 1802.08797)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import Encoder
from scaleport.models.encoders.edsr import conv3
from scaleport.models.registry import ENCODERS


class DenseBlock(nn.Module):
    """Dense layers, a 1x1 convolution over all they made, and the input again.

    Layer ``c`` sees ``width + c * growth`` channels: the input, then what each layer before it
    added.
    """

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv3(width + c * growth, growth) for c in range(layers))
        self.fuse = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape."""
        y = x
        for layer in self.layers:
            y = torch.cat([y, functional.relu(layer(y))], dim=1)
        out: Tensor = x + self.fuse(y)
        return out


@ENCODERS.register("rdn")
class RDN(Encoder):
    """RDN without its upsampler: two shallow convolutions, dense blocks, their fusion, long skip.

    The defaults are the paper's larger configuration, known as RDN-B (D = 16, C = 8, G = 64):
    21 973 952 parameters.

    Args:
        width: channels between the blocks (G0 in the paper).
        blocks: number of dense blocks (D).
        layers: layers in each (C).
        growth: channels that each layer adds (G).
    """

    rewrites: tuple[str, ...] = ("fusion added up block by block",)

    def __init__(
        self, width: int = 64, blocks: int = 16, layers: int = 8, growth: int = 64
    ) -> None:
        super().__init__()
        if min(width, blocks, layers, growth) < 1:
            raise UsageError("rdn needs width, blocks, layers and growth of at least 1")
        self.out_channels = width
        self.head = conv3(3, width)
        self.head2 = conv3(width, width)
        self.body = nn.ModuleList(DenseBlock(width, growth, layers) for _ in range(blocks))
        self.fuse = nn.Conv2d(blocks * width, width, 1)
        self.tail = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = self.head2(shallow)
        made = []
        for block in self.body:
            y = block(y)
            made.append(y)
        out: Tensor = shallow + self.tail(self.fuse(torch.cat(made, dim=1)))
        return out

    def deploy(self) -> nn.Module:
        """The same network, with the fusion of all blocks added up block by block."""
        return LeanRDN(self)


class LeanRDN(nn.Module):
    """RDN without the tensor that holds the outputs of all blocks.

    The 1x1 convolution over them is a sum of one per block. Taken as the blocks come, no output
    outlives its block: RDN-B would else keep 1024 channels, and copy them once.
    """

    def __init__(self, rdn: RDN) -> None:
        super().__init__()
        self.head, self.head2, self.body, self.tail = rdn.head, rdn.head2, rdn.body, rdn.tail
        fuse, width = rdn.fuse, rdn.out_channels
        self.fuse = nn.ModuleList()
        for i in range(len(rdn.body)):
            part = nn.Conv2d(width, width, 1, bias=i == 0, dtype=fuse.weight.dtype)
            with torch.no_grad():
                part.weight.copy_(fuse.weight[:, i * width : (i + 1) * width])
                if part.bias is not None and fuse.bias is not None:
                    part.bias.copy_(fuse.bias)
            self.fuse.append(part)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[N, 3, H, W] to float[N, width, H, W]."""
        shallow = self.head(x)
        y = self.head2(shallow)
        total: Tensor | None = None
        for block, part in zip(self.body, self.fuse, strict=True):
            y = block(y)
            total = part(y) if total is None else total + part(y)
        out: Tensor = shallow + self.tail(total)
        return out
