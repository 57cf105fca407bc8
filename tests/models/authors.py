"""Networks as their authors name their parts, small and plain, for tests of the importers.

Each is a module whose ``state_dict`` has the names of a published file, and whose ``forward``
follows the paper literally. Nothing here shares code with the package. Image sizes must be
multiples of the windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN = torch.tensor([0.4488, 0.4371, 0.404])[:, None, None]


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def tree(**parts: nn.Module) -> Any:
    """A module of named parts."""
    made = nn.Module()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def vary(module: nn.Module, seed: int = 0) -> Any:
    """Random weights everywhere, also where fresh ones are zeros or ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 - 0.2)
    return module.eval()


class Edsr(nn.Module):
    """EDSR-PyTorch and LIIF; with ``factors`` the whole network on pixels in [0, 1]."""

    residual = 1.0

    def __init__(self, width: int, blocks: int, factors: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = conv(3, 3, 1), conv(3, 3, 1)
        for shift, sign in ((self.sub_mean, -1), (self.add_mean, 1)):
            assert shift.bias is not None
            shift.weight.data = torch.eye(3)[:, :, None, None].clone()
            shift.bias.data = sign * 255 * MEAN.flatten()
            shift.requires_grad_(False)
        self.head = nn.Sequential(conv(3, width))
        body: list[nn.Module] = [
            tree(body=nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width)))
            for _ in range(blocks)
        ]
        self.body = nn.ModuleList([*body, conv(width, width)])
        if factors:
            steps = [(conv(width, width * f * f), nn.PixelShuffle(f)) for f in factors]
            ups = nn.Sequential(*(part for step in steps for part in step))
            self.tail = nn.Sequential(ups, conv(width, 3))

    def features(self, x: Tensor) -> Tensor:
        x = self.head(x)
        y = x
        for block in self.body[:-1]:
            y = y + self.residual * block.body(y)
        out: Tensor = x + self.body[-1](y)
        return out

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.add_mean(self.tail(self.features(self.sub_mean(image * 255)))) / 255
        return out


class BasicEdsr(nn.Module):
    """EDSR of BasicSR; EDSR-IGConv."""

    place = "upsample"
    mean = MEAN
    residual = 1.0

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.conv_first, self.conv_after_body = conv(3, width), conv(width, width)
        self.body = nn.ModuleList(
            tree(conv1=conv(width, width), conv2=conv(width, width)) for _ in range(blocks)
        )

    def features(self, x: Tensor) -> Tensor:
        x = self.conv_first(x)
        y: Any = x
        for block in self.body:
            y = y + self.residual * block.conv2(functional.relu(block.conv1(y)))
        out: Tensor = x + self.conv_after_body(y)
        return out


class Rdn(nn.Module):
    """RDN of LIIF and of RDN-IGConv."""

    place = "UPNet"
    mean = torch.zeros(3, 1, 1)

    def __init__(self, width: int, blocks: int, layers: int, growth: int) -> None:
        super().__init__()
        self.SFENet1, self.SFENet2 = conv(3, width), conv(width, width)
        self.RDBs = nn.ModuleList(
            tree(
                convs=nn.ModuleList(
                    tree(conv=nn.Sequential(conv(width + i * growth, growth), nn.ReLU()))
                    for i in range(layers)
                ),
                LFF=conv(width + layers * growth, width, 1),
            )
            for _ in range(blocks)
        )
        self.GFF = nn.Sequential(conv(blocks * width, width, 1), conv(width, width))

    def features(self, x: Tensor) -> Tensor:
        first = self.SFENet1(x)
        x = self.SFENet2(first)
        made = []
        for block in self.RDBs:
            y: Any = x
            for layer in block.convs:
                y = torch.cat([y, layer.conv(y)], 1)
            x = x + block.LFF(y)
            made.append(x)
        out: Tensor = first + self.GFF(torch.cat(made, 1))
        return out


class Rcan(nn.Module):
    """RCAN-IGConv+, with mean shifts that were trained along."""

    place = "tail"

    def __init__(self, width: int, groups: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = conv(3, 3, 1), conv(3, 3, 1)
        self.head = nn.Sequential(conv(3, width))

        def block() -> nn.Module:
            attention = tree(
                conv_du=nn.Sequential(
                    conv(width, hidden, 1), nn.ReLU(), conv(hidden, width, 1), nn.Sigmoid()
                )
            )
            return tree(
                body=nn.ModuleList([conv(width, width), nn.ReLU(), conv(width, width), attention])
            )

        def group() -> nn.Module:
            return tree(body=nn.ModuleList([*(block() for _ in range(blocks)), conv(width, width)]))

        self.body = nn.ModuleList([*(group() for _ in range(groups)), conv(width, width)])

    def features(self, x: Tensor) -> Tensor:
        x = self.head(x)
        y = x
        for group in self.body[:-1]:
            z = y
            for block in group.body[:-1]:
                first, relu, second, attention = block.body
                made = second(relu(first(z)))
                z = z + made * attention.conv_du(made.mean((2, 3), keepdim=True))
            y = y + group.body[-1](z)
        out: Tensor = x + self.body[-1](y)
        return out


class Smfanet(nn.Module):
    """SMFANet-IGConv; images of at least 8 x 8 pixels."""

    place = "to_img"
    mean = torch.zeros(3, 1, 1)

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.to_feat = conv(3, width)
        self.part = width // 2

        def block() -> nn.Module:
            smfa = tree(
                linear_0=conv(width, 2 * width, 1),
                linear_1=conv(width, width, 1),
                linear_2=conv(width, width, 1),
                lde=tree(
                    conv_0=nn.Sequential(
                        conv(width, 2 * width, groups=width), conv(2 * width, 2 * width, 1)
                    ),
                    conv_1=conv(2 * width, width, 1),
                ),
                dw_conv=conv(width, width, groups=width),
            )
            smfa.alpha = nn.Parameter(torch.ones(1, width, 1, 1))
            smfa.belt = nn.Parameter(torch.zeros(1, width, 1, 1))
            pcfn = tree(
                conv_0=conv(width, 2 * width, 1),
                conv_1=conv(self.part, self.part),
                conv_2=conv(2 * width, width, 1),
            )
            return tree(smfa=smfa, pcfn=pcfn)

        self.feats = nn.Sequential(*(block() for _ in range(blocks)))

    def features(self, x: Tensor) -> Tensor:
        x = self.to_feat(x)
        out: Any = x
        for block in self.feats:
            out = out + self.modulated(block.smfa, functional.normalize(out))
            y = functional.gelu(block.pcfn.conv_0(functional.normalize(out)))
            near = functional.gelu(block.pcfn.conv_1(y[:, : self.part]))
            out = out + block.pcfn.conv_2(torch.cat([near, y[:, self.part :]], 1))
        return x + out

    @staticmethod
    def modulated(part: Any, x: Tensor) -> Tensor:
        y, x = part.linear_0(x).chunk(2, 1)
        height, width = x.shape[2:]
        pooled = functional.adaptive_max_pool2d(x, (height // 8, width // 8))
        spread = x.var((2, 3), keepdim=True)
        gate = part.linear_1(part.dw_conv(pooled) * part.alpha + spread * part.belt)
        gate = functional.interpolate(functional.gelu(gate), size=(height, width), mode="nearest")
        local = part.lde.conv_1(functional.gelu(part.lde.conv_0(y)))
        out: Tensor = part.linear_2(x * gate + local)
        return out


def one_convolution(network: Any, width: int, scale: int) -> Callable[[Tensor], Tensor]:
    """Give an encoder the upsampler of the light networks; the whole network, on pixels."""
    network.upsample = nn.Sequential(conv(width, 3 * scale * scale), nn.PixelShuffle(scale))

    def run(image: Tensor) -> Tensor:
        out: Tensor = network.upsample(network.features(image - network.mean)) + network.mean
        return out

    return run
