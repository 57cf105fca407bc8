"""C2D-ISR's backbone and MambaIRv2, of which no file is published: statements on our weights.

See :mod:`published`. The backbone has layers of HiT-SR, whose statement it is given, or those of
MambaIRv2, which are stated here: pixels one after the other, in the order of their classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from authors_windowed import HiT, continued, mirrored, offsets, regions, unwindows, windows
from forms import make
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models import Network

Run = Callable[[Tensor], Tensor]
Made = tuple[Network, Run]
Mix = Callable[[Tensor], Tensor]
"""From [H, W, C] to the same shape."""


def chain(
    network: Network, block: Callable[[Any, Tensor], Tensor], mean: Tensor, std: float
) -> Run:
    """What all of these encoders have around their blocks, and one convolution behind."""
    ours, tail = network.encoder, network.upsampler

    def run(image: Tensor) -> Tensor:
        encoder: Any = ours
        shallow = encoder.head((image - mean) / std)
        y = encoder.norm1(shallow[0].permute(1, 2, 0))
        for part in encoder.blocks:
            y = y + part.conv(block(part, y).permute(2, 0, 1)).permute(1, 2, 0)
        deep = encoder.tail(encoder.norm2(y).permute(2, 0, 1))
        made: Any = tail
        return functional.pixel_shuffle(made.conv(shallow + deep), 2) * std + mean

    return run


def gated(part: Any, x: Tensor) -> Tensor:
    """The feed-forward part: one half gates what a depthwise convolution makes of the other."""
    kept, gate = functional.gelu(part.expand(x)).chunk(2, -1)
    gate = part.depthwise(part.norm(gate).permute(2, 0, 1)).permute(1, 2, 0)
    out: Tensor = part.reduce(kept * gate)
    return out


def scanned(part: Any, x: Tensor) -> Tensor:
    """The state-space part, pixel by pixel; a pixel's prompt is that of its place, not its turn."""
    height, width, channels = x.shape
    tokens = x.reshape(-1, channels)
    kinds = part.route(tokens).argmax(-1)
    u = part.project_in(x.permute(2, 0, 1)[None])
    u = (u * torch.sigmoid(part.gate(u)))[0].flatten(1).T
    prompts = (part.prompt_classes @ part.prompt_states)[kinds]
    order = sorted(range(len(tokens)), key=lambda pixel: (int(kinds[pixel]), pixel))
    step, drive, read = part.select(u).split([part.step_rank, part.states, part.states], -1)
    delta, decay = functional.softplus(part.step(step)), -part.log_decay.exp()
    state = torch.zeros_like(decay)
    out = torch.empty_like(tokens)
    for turn, pixel in enumerate(order):
        kept = (delta[pixel][:, None] * decay).exp() * state
        state = kept + (delta[pixel] * u[pixel])[:, None] * drive[pixel]
        seen = state @ (read[pixel] + prompts[turn]) + part.skip * u[pixel]
        out[pixel] = part.project_out(part.norm(seen))
    return out.reshape(height, width, channels)


def mixed(layer: Any, mix: Mix, x: Tensor) -> Tensor:
    """A layer of MambaIRv2: attention or a correlation first, then the scan."""
    for part, between in ((layer, mix), (layer.second, lambda y: scanned(layer.second.scan, y))):
        y = x + between(part.norm1(x))
        y = y + gated(part.mlp, part.norm2(y))
        x = y + part.scale * x
    return x


def attended(part: Any, x: Tensor) -> Tensor:
    """Attention in windows, which may be shifted."""
    height, width, c = x.shape
    inner, shift, size = part.attention, part.shift, part.window
    seen = windows(torch.roll(x, (-shift, -shift), (0, 1)), size)
    q, k, v = inner.qkv(seen).split(c, -1)
    d, apart = c // inner.heads, torch.zeros(1, 1, 1)
    if shift:
        own = regions(height, width, size, shift)
        apart = torch.where(own[:, :, None] == own[:, None, :], 0.0, -100.0)
    out = []
    for head in range(inner.heads):
        one = slice(head * d, head * d + d)
        logits = q[..., one] @ k[..., one].transpose(1, 2) / d**0.5
        logits = logits + inner.table[offsets(size), head] + apart
        out.append(logits.softmax(-1) @ v[..., one])
    made = unwindows(inner.proj(torch.cat(out, -1)), size, height, width)
    return torch.roll(made, (shift, shift), (0, 1))


def mambairv2(folder: Path) -> Made:
    """MambaIRv2-light: the image is continued by mirroring, pixels are cut at the end."""
    del folder
    mean = [0.4488, 0.4371, 0.404]
    config = {
        "encoder": {"name": "mambairv2", "width": 12, "depths": [2], "heads": 2, "window": 8},
        "upsampler": {"name": "spconv", "scale": 2},
        "normalisation": {"mean": mean, "std": 1.0},
    }
    network = make(config)

    def block(part: Any, x: Tensor) -> Tensor:
        for layer in part.layers:
            x = mixed(layer, lambda y, layer=layer: attended(layer.mix, y), x)  # type: ignore[misc]
        return x

    run = chain(network, block, torch.tensor(mean)[:, None, None], 1.0)
    return network, continued(run, 8, mirrored)


_WINDOWS = (16, 4, 16)


def hiet(base: str) -> Callable[[Path], Made]:
    """The backbone of C2D-ISR."""

    def made(folder: Path) -> Made:
        del folder
        encoder = {"name": "hiet", "base": base, "width": 20, "blocks": 1, "heads": 2}
        config = {
            "encoder": {**encoder, "windows": list(_WINDOWS)},
            "upsampler": {"name": "spconv", "scale": 2},
            "normalisation": {"mean": [0.5] * 3, "std": 0.5},
        }
        network = make(config)
        theirs = HiT(20, 1, list(_WINDOWS), 2, base == "srformer")

        def correlated(source: Any, number: int, x: Tensor) -> Tensor:
            size = _WINDOWS[number]
            part = theirs.layers[0].residual_group.blocks[number]  # type: ignore[union-attr]
            _copy_correlation(source, part.correlation)
            return theirs.correlate(part.correlation, x, size, _code(source, size))

        def layer(block: Any, number: int, x: Tensor) -> Tensor:
            source = block.layers[number]
            if base == "mambairv2":
                return mixed(source, lambda y: correlated(source.mix, number, y), x)
            x = x + source.norm1(correlated(source.correlation, number, x))
            y = functional.gelu(_linear(source.mlp.expand, x))
            if base == "srformer":
                near = source.mlp.depthwise(y.permute(2, 0, 1))
                y = y + functional.gelu(near).permute(1, 2, 0)
            out: Tensor = x + source.norm2(_linear(source.mlp.reduce, y))
            return out

        def block(part: Any, x: Tensor) -> Tensor:
            first = layer(part, 0, x)
            middle = layer(part, 1, first)
            return layer(part, 2, part.fuse[0](torch.cat([middle, first], -1)))

        return network, chain(network, block, torch.tensor(0.5), 0.5)

    return made


def _linear(layer: Any, x: Tensor) -> Tensor:
    return functional.linear(x, layer.weight.flatten(1), layer.bias)


def _code(source: Any, size: int) -> Tensor:
    """The code of each place in a window: a linear map of its binary digits."""
    bits = int(math.log2(size))
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    digits = [(places >> (bits - 1 - i)) % 2 for i in range(bits)]
    both = torch.cat([torch.stack(digits)[..., axis].T for axis in (0, 1)], 1).float()
    table: Tensor = source.code.linear(both).reshape(size, size, -1)
    return table


def _copy_correlation(source: Any, theirs: Any) -> None:
    """Our weights of a correlation under the names of HiT-SR."""
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (source.features.reduce, theirs.qv.conv[0]),
        (source.features.conv, theirs.qv.conv[2]),
        (source.features.expand, theirs.qv.conv[4]),
        (source.features.linear, theirs.qv.linear),
        (source.project, theirs.proj),
        (source.pool, theirs.spatial_linear),
        (source.position.project, theirs.pos.pos_proj),
    ]
    for i in range(3):
        step = getattr(theirs.pos, f"pos{i + 1}")
        pairs += [(source.position.norms[i], step[0]), (source.position.linears[i], step[2])]
    for ours, layer in pairs:
        with torch.no_grad():
            layer.weight.copy_(ours.weight.reshape(layer.weight.shape))  # type: ignore[operator]
            layer.bias.copy_(ours.bias)  # type: ignore[operator]
