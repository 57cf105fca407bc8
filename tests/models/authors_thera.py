"""Thera as its JAX program names its parts, small and plain; see :mod:`authors`.

Modules have that program's names with torch's layers; :func:`pickled` writes them as it does.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from authors import MEAN, conv, tree
from authors_windowed import offsets, regions, unwindows, windows
from torch import Tensor, nn
from torch.nn import functional

RunAt = Callable[[Tensor, tuple[int, int]], Tensor]


class FlaxEdsr(nn.Module):
    """EDSR, residuals added as they are."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.head, self.body = tree(layers_0=conv(3, width)), tree()
        for i in range(blocks):
            pair = tree(layers_0=conv(width, width), layers_2=conv(width, width))
            setattr(self.body, f"layers_{i}", tree(body=pair))
        setattr(self.body, f"layers_{blocks}", conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head.layers_0(x)
        y = x
        *blocks, last = self.body.children()
        for block in blocks:
            inner: Any = block.body
            y = y + inner.layers_2(functional.relu(inner.layers_0(y)))
        out: Tensor = x + last(y)
        return out


class FlaxRdn(nn.Module):
    """RDN; its layers are numbered in the order in which they run."""

    def __init__(self, width: int, blocks: int, layers: int, growth: int) -> None:
        super().__init__()
        self.Conv_0, self.Conv_1 = conv(3, width), conv(width, width)
        for i in range(blocks):
            parts = {
                f"RDB_Conv_{j}": tree(Conv_0=conv(width + j * growth, growth))
                for j in range(layers)
            }
            parts["Conv_0"] = conv(width + layers * growth, width, 1)
            setattr(self, f"RDB_{i}", tree(**parts))
        self.Conv_2, self.Conv_3 = conv(blocks * width, width, 1), conv(width, width)
        self.blocks, self.layers = blocks, layers

    def forward(self, x: Tensor) -> Tensor:
        first = self.Conv_0(x)
        x, made = self.Conv_1(first), []
        for i in range(self.blocks):
            block = getattr(self, f"RDB_{i}")
            y = x
            for j in range(self.layers):
                grown = functional.relu(getattr(block, f"RDB_Conv_{j}").Conv_0(y))
                y = torch.cat([y, grown], 1)
            x = x + block.Conv_0(y)
            made.append(x)
        out: Tensor = first + self.Conv_3(self.Conv_2(torch.cat(made, 1)))
        return out


def approximate_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class FlaxConvNeXt(nn.Module):
    """What refines the features in Thera-Plus."""

    def __init__(self, stages: list[tuple[int, int]]) -> None:
        super().__init__()
        width, number = stages[0][0], 0
        for wider, blocks in stages:
            layers: list[nn.Module] = []
            if wider != width:
                norm = nn.LayerNorm(width, eps=1e-6)
                layers.append(tree(LayerNorm_0=norm, Conv_0=conv(width, wider, 1)))
            for _ in range(blocks):
                residual = tree(
                    layers_0=conv(wider, wider, groups=wider, bias=False),
                    layers_1=nn.LayerNorm(wider, eps=1e-6),
                    layers_2=conv(wider, 4 * wider, 1),
                    layers_4=conv(4 * wider, wider, 1),
                )
                layers.append(tree(residual=residual))
            for layer in layers:
                setattr(self, f"layers_{number}", layer)
                number += 1
            width = wider

    def forward(self, x: Tensor) -> Tensor:
        layers: Any = self.children()
        for layer in layers:
            if not hasattr(layer, "residual"):
                x = layer.Conv_0(layer.LayerNorm_0(x.movedim(1, -1)).movedim(-1, 1))
                continue
            part = layer.residual
            y = part.layers_1(part.layers_0(x).movedim(1, -1)).movedim(-1, 1)
            x = x + part.layers_4(approximate_gelu(part.layers_2(y)))
        return x


class FlaxSwin(nn.Module):
    """What refines the features in Thera-Pro: a SwinIR between two convolutions."""

    def __init__(
        self, channels: int, width: int, depths: list[int], heads: int, window: int
    ) -> None:
        super().__init__()
        self.heads, self.window, self.depths = heads, window, depths
        self.Conv_0 = conv(channels, width)
        self.PatchEmbed_0 = tree(LayerNorm_0=nn.LayerNorm(width))
        for i, depth in enumerate(depths):
            blocks = {f"SwinTransformerBlock_{j}": self.block(width) for j in range(depth)}
            setattr(self, f"RSTB_{i}", tree(BasicLayer_0=tree(**blocks), Conv_0=conv(width, width)))
        self.LayerNorm_0, self.Conv_1 = nn.LayerNorm(width), conv(width, width)
        self.Conv_2 = conv(width, channels)

    def block(self, width: int) -> nn.Module:
        attention = tree(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        attention.relative_position_bias_table = nn.Parameter(
            torch.randn((2 * self.window - 1) ** 2, self.heads)
        )
        return tree(
            LayerNorm_0=nn.LayerNorm(width),
            WindowAttention_0=attention,
            LayerNorm_1=nn.LayerNorm(width),
            Mlp_0=tree(Dense_0=nn.Linear(width, 2 * width), Dense_1=nn.Linear(2 * width, width)),
        )

    def attend(self, part: Any, x: Tensor, shift: int) -> Tensor:
        """float[H, W, C] to the same shape."""
        height, width, c = x.shape
        seen = windows(torch.roll(x, (-shift, -shift), (0, 1)), self.window)
        q, k, v = part.qkv(seen).split(c, -1)
        d, table = c // self.heads, part.relative_position_bias_table[offsets(self.window)]
        apart = 0.0
        if shift:
            own = regions(height, width, self.window, shift)
            apart = torch.where(own[:, :, None] == own[:, None, :], 0.0, -100.0)
        out = []
        for head in range(self.heads):
            one = slice(head * d, head * d + d)
            logits = q[..., one] @ k[..., one].transpose(1, 2) / d**0.5 + table[..., head] + apart
            out.append(logits.softmax(-1) @ v[..., one])
        made = unwindows(part.proj(torch.cat(out, -1)), self.window, height, width)
        return torch.roll(made, (shift, shift), (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        more = (0, -width % self.window, 0, -height % self.window)
        shallow = self.Conv_0(functional.pad(x, more, mode="reflect"))
        y = self.PatchEmbed_0.LayerNorm_0(shallow[0].permute(1, 2, 0))
        for i, depth in enumerate(self.depths):
            group = getattr(self, f"RSTB_{i}")
            z = y
            for j in range(depth):
                block = getattr(group.BasicLayer_0, f"SwinTransformerBlock_{j}")
                shift = self.window // 2 if j % 2 else 0
                z = z + self.attend(block.WindowAttention_0, block.LayerNorm_0(z), shift)
                hidden = approximate_gelu(block.Mlp_0.Dense_0(block.LayerNorm_1(z)))
                z = z + block.Mlp_0.Dense_1(hidden)
            y = y + group.Conv_0(z.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        deep = shallow + self.Conv_1(self.LayerNorm_0(y).permute(2, 0, 1)[None])
        out: Tensor = functional.leaky_relu(self.Conv_2(deep), 0.01)
        return out[..., :height, :width]


def thera(encoder: nn.Module, refine: nn.Module | None, channels: int, waves: int) -> Any:
    """A whole network with the names of a file."""
    parts = {"encoder": encoder, "out_conv": conv(channels, 4 * waves, 1)}
    made = tree(**parts, **({} if refine is None else {"refine": refine}))
    made.components = nn.Parameter(10 * torch.randn(2, waves))
    made.k = nn.Parameter(torch.tensor(0.06))
    return made


def heat_field(network: Any) -> RunAt:
    """The published forward pass, at any output size, on pixels in [0, 1]."""

    def axis(length: int, count: int) -> tuple[Tensor, Tensor]:
        twice = (2 * torch.arange(count) + 1) * length
        nearest = (twice // (2 * count)).clamp(0, length - 1)
        return nearest, twice.to(network.components.dtype) / (2 * count) - 0.5 - nearest

    def run(image: Tensor, size: tuple[int, int]) -> Tensor:
        mean = MEAN.to(image.dtype)
        x = network.encoder((image - mean) / (0.25 + 1e-5) ** 0.5)
        x = network.refine(x) if hasattr(network, "refine") else x
        row, down = axis(image.shape[2], size[0])
        col, across = axis(image.shape[3], size[1])
        here = network.out_conv(x[:, :, row][..., col])[0].permute(1, 2, 0)
        waves = network.components.shape[1]
        amplitude = here[..., : 3 * waves].reshape(*size, waves, 3)
        place = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1)
        lost = network.components.norm(dim=0) ** 2 * network.k * (size[0] / image.shape[2]) ** -2
        heat = torch.sin(place @ network.components + here[..., 3 * waves :]) * torch.exp(-lost)
        made = torch.einsum("hwk,hwkc->chw", heat, amplitude)[None]
        return made * 0.5 + mean + image[:, :, row][..., col]

    return run


class FrozenDict(dict):  # type: ignore[type-arg]
    """Pickles itself under the name that Flax gives its mappings."""

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)


FrozenDict.__module__, FrozenDict.__qualname__ = "flax.core.frozen_dict", "FrozenDict"


def flax_tree(module: nn.Module) -> dict[str, Any]:
    """Nested arrays as Flax keeps them: kernels with the output channels last."""
    found: dict[str, Any] = {}
    for name, value in module.named_parameters(recurse=False):
        array = value.detach()
        if name == "weight" and isinstance(module, nn.LayerNorm):
            name = "scale"
        elif name == "weight":
            array = array.permute(2, 3, 1, 0) if array.dim() == 4 else array.t()
            name = "kernel"
        found[name] = array.numpy()
    return found | {name: flax_tree(child) for name, child in module.named_children()}


def pickled(module: nn.Module, path: Path, **more: Any) -> None:
    """Write a module as the published program writes its weights."""
    frozen = FrozenDict({"params": flax_tree(module)})
    package = ModuleType("flax.core.frozen_dict")
    package.FrozenDict = FrozenDict  # type: ignore[attr-defined]
    kept = {name: sys.modules.get(name) for name in ("flax", "flax.core", package.__name__)}
    sys.modules |= dict.fromkeys(kept, package)
    try:
        path.write_bytes(pickle.dumps({"model": frozen, **more}))
    finally:
        for name, module_before in kept.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before
