"""Decoders as their authors name their parts, small and plain; see :mod:`authors`.

Functions that return a function of an image give an encoder the decoder's parts, and return the
whole network at an integer scale, on pixels in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from authors import conv, tree
from torch import Tensor, nn
from torch.nn import functional

Run = Callable[[Tensor], Tensor]


def bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """[C, H, W] at positions in pixels [...], borders continued: [..., C]."""
    height, width = image.shape[1:]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    low, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    total: Any = 0
    for row, a in ((top, 1 - (y - top)), (low, y - top)):
        for col, b in ((left, 1 - (x - left)), (right, x - left)):
            total = total + image[:, row, col].movedim(0, -1) * (a * b)[..., None]
    result: Tensor = total
    return result


def positions(size: int, scale: int) -> Tensor:
    """Where the output pixels of an axis lie, in LR pixels."""
    return (torch.arange(size * scale) + 0.5) / scale - 0.5


def hyper_network(width: int, latent: int, layers: int, out: int, groups: int) -> Any:
    chain: list[nn.Module] = []
    for _ in range(layers):
        chain += [nn.Conv2d(latent, latent, 1, groups=groups), nn.ReLU()]
    made = tree(
        phase=nn.Conv2d(1, latent // 2, 1),
        query_kernel=nn.Sequential(
            *chain, nn.Conv2d(latent, out, 1, groups=groups, bias=groups == 1)
        ),
    )
    made.freq = nn.Parameter(torch.randn(9 * width, latent, 1, 1))
    made.amplitude = nn.Parameter(torch.randn(9 * width, latent, 1, 1))
    return made


def kernels(part: Any, scale: int, max_s: int, split: bool, symmetric: bool) -> Tensor:
    """A convolution kernel [out s^2, C, 3, 3] of the hyper-network."""
    centre = (2 * torch.arange(scale) + 1) / scale - 1
    across, down = part.freq.chunk(2, 1)
    phase = part.phase(torch.full((1, 1, 1, 1), 2 / min(scale, max_s)))
    theta = across * centre[None, None, None, :] + down * centre[None, None, :, None] + phase
    code = torch.cat([(math.pi * theta).cos(), (math.pi * theta).sin()], 1)
    if split:
        code = torch.cat([code[:, 0::2], code[:, 1::2]], 1)
    made = part.query_kernel(code * part.amplitude)
    kernel = made.permute(1, 2, 3, 0).reshape(-1, made.shape[0] // 9, 3, 3)
    if not symmetric:
        return kernel
    turned = [torch.rot90(k, i, (2, 3)) for i in range(4) for k in (kernel, kernel.flip(3))]
    return torch.stack(turned).mean(0)


def igconv(
    network: Any,
    width: int,
    scale: int,
    plus: bool,
    max_s: int = 4,
    latent: int = 8,
    layers: int = 2,
) -> Run:
    """IGConv, or IGConv+, in the place where the encoder's project keeps it."""
    setattr(network, network.place, hyper_network(width, latent, layers, 3, 1))
    if plus:
        network.skip = tree(convs=hyper_network(width, latent, 2, 12, 2))

    def run(image: Tensor) -> Tensor:
        shifts = hasattr(network, "add_mean")
        x = network.sub_mean(image) if shifts else image - network.mean
        feature = network.features(x)
        kernel = kernels(getattr(network, network.place), scale, max_s, False, plus)
        y = functional.pixel_shuffle(functional.conv2d(feature, kernel, padding=1), scale)
        out: Tensor = network.add_mean(y) if shifts else y + network.mean
        return out + sampled(image, feature) if plus else out

    def sampled(image: Tensor, feature: Tensor) -> Tensor:
        kernel = kernels(network.skip.convs, scale, max_s, True, True)
        y = functional.pixel_shuffle(functional.conv2d(feature, kernel, padding=1), scale)[0]
        shift = 0.5 * y[:6] * y[6:].sigmoid()
        column, row = positions(image.shape[3], scale), positions(image.shape[2], scale)
        planes = [
            bilinear(image[0, k : k + 1], row[:, None] + shift[3 + k], column + shift[k])[..., 0]
            for k in range(3)
        ]
        return torch.stack(planes)[None]

    return run


def mlp(sizes: list[int], activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return tree(layers=nn.Sequential(*layers[:-1]))


def liif(
    network: Any,
    width: int,
    hidden: int,
    scale: int,
    layers: int = 2,
    ensemble: bool = True,
    unfold: bool = True,
    cell: bool = True,
) -> Run:
    """LIIF and its ablations, neighbour by neighbour."""
    inputs = (9 if unfold else 1) * width + (4 if cell else 2)
    network.imnet = mlp([inputs, *[hidden] * layers, 3], nn.ReLU)

    def line(size: int, step: int) -> tuple[Tensor, Tensor]:
        """Of one axis: the pixels that are asked, and how far positions are away from them."""
        u = positions(size, scale)
        place = (u.floor() + step if ensemble else (u + 0.5).floor()).clamp(0, size - 1)
        return place.long(), 2 * (u - place)

    def run(image: Tensor) -> Tensor:
        feature = network.encoder.features((image - 0.5) / 0.5)
        if unfold:
            feature = functional.unfold(feature, 3, padding=1).reshape(1, -1, *image.shape[2:])
        answers, areas = [], []
        for step_y in (0, 1) if ensemble else (0,):
            row, rel_y = line(image.shape[2], step_y)
            for step_x in (0, 1) if ensemble else (0,):
                col, rel_x = line(image.shape[3], step_x)
                shape = (len(row), len(col))
                parts = [feature[0][:, row][:, :, col], rel_y[:, None].expand(1, *shape)]
                parts.append(rel_x.expand(1, *shape))
                if cell:
                    parts.append(torch.full((2, *shape), 2 / scale))
                asked = torch.cat(parts).permute(1, 2, 0)
                answers.append(network.imnet.layers(asked).permute(2, 0, 1))
                areas.append((rel_y[:, None] * rel_x).abs() + 1e-9)
        shares = [area / torch.stack(areas).sum(0) for area in areas[::-1]]
        out = sum(a * b for a, b in zip(answers, shares, strict=True))
        return out[None] * 0.5 + 0.5

    return run


def metasr(network: Any, width: int, hidden: int, scale: int) -> Run:
    network.imnet = mlp([3, hidden, 27 * width], nn.ReLU)

    def run(image: Tensor) -> Tensor:
        feature = network.encoder.features((image - 0.5) / 0.5)
        columns = functional.unfold(feature, 3, padding=1).reshape(-1, *image.shape[2:])
        out = torch.zeros(1, 3, image.shape[2] * scale, image.shape[3] * scale)
        for u in range(scale):
            for v in range(scale):
                rel = torch.tensor([u / scale, v / scale, 1 / scale])
                matrix = network.imnet.layers(rel).reshape(9 * width, 3)
                out[0, :, u::scale, v::scale] = torch.einsum("khw,kc->chw", columns, matrix)
        return out * 0.5 + 0.5

    return run


def hiif(network: Any, width: int, inner: int, heads: int, levels: int, scale: int) -> Run:
    network.freq = conv(width, inner)
    network.fc_layers = nn.ModuleList()
    for j in range(levels):
        inputs = inner + 2 if j else 4 * inner + 4
        network.fc_layers.append(
            tree(
                norm=nn.LayerNorm(inputs),
                fc1=nn.Linear(inputs, inner),
                fc2=nn.Linear(inner, 3 if j == levels - 1 else inner),
            )
        )
    for i in range(2):
        unit = tree(
            qkv_proj=nn.Linear(inner, 3 * inner),
            kln=nn.LayerNorm(inner // heads),
            vln=nn.LayerNorm(inner // heads),
            proj1=nn.Linear(inner, inner),
            proj2=nn.Linear(inner, inner),
        )
        setattr(network, f"conv{i}", unit)

    def line(size: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
        u = positions(size, scale)
        low = u.floor()
        places = [low.clamp(0, size - 1).long(), (low + 1).clamp(0, size - 1).long()]
        share = [(u - place).abs() for place in places][::-1]
        weights = [part / (share[0] + share[1]) for part in share]
        local = torch.where(u < 0, 1 / size - u, u - low)
        return places, weights, (local + 1e-4).clamp(max=1 - 1e-7)

    def run(image: Tensor) -> Tensor:
        x = (image - 0.5) / 0.5
        feature = network.freq(network.encoder.features(x))[0]
        rows, down, local_y = line(image.shape[2])
        cols, across, local_x = line(image.shape[3])
        shape = (len(local_y), len(local_x))
        parts = [
            feature[:, row][:, :, col] * a[:, None] * b
            for row, a in zip(rows, down, strict=True)
            for col, b in zip(cols, across, strict=True)
        ]
        cell = torch.full((2, *shape), 2 / scale)
        y = torch.cat([*parts, cell]).flatten(1).T
        for j, level in enumerate(network.fc_layers):
            digits = [(local * 2 ** (j + 1)).floor() % 2 for local in (local_y, local_x)]
            both = [digits[0][:, None].expand(shape), digits[1].expand(shape)]
            y = torch.cat([y, torch.stack(both, -1).flatten(0, 1)], 1)
            y = level.fc2(functional.gelu(level.fc1(level.norm(y))))
            for unit in (network.conv0, network.conv1) if j == 0 else ():
                y = attend(unit, y)
        low = bilinear(
            x[0], *torch.meshgrid(*(positions(n, scale) for n in x.shape[2:]), indexing="ij")
        )
        return (y.T.reshape(1, 3, *shape) + low.permute(2, 0, 1)) * 0.5 + 0.5

    def attend(unit: Any, y: Tensor) -> Tensor:
        d, out = inner // heads, []
        for part in unit.qkv_proj(y).split(3 * d, 1):
            q, k, v = part.split(d, 1)
            out.append(q @ (unit.kln(k).T @ unit.vln(v) / len(y)))
        made = torch.cat(out, 1) + y
        result: Tensor = unit.proj2(functional.gelu(unit.proj1(made))) + y
        return result

    return run


class Refined(nn.Module):
    """A convolution that refines its frozen kernel."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(outputs, inputs, kernel, kernel) * 0.1)
        self.bias = nn.Parameter(torch.zeros(outputs))
        pairs = inputs * outputs
        self.convmap = nn.Conv2d(pairs, pairs, 3, padding=1, groups=pairs, bias=False)
        self.linear = nn.Conv2d(pairs, pairs, 1, groups=pairs, bias=False)

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        planes = self.weight.flatten(0, 1)[None]
        kernel = self.weight + (self.convmap(planes) * self.linear(planes))[0].reshape(
            self.weight.shape
        )
        return functional.conv2d(x, kernel, self.bias, padding=self.weight.shape[2] // 2)


def shifts(width: int) -> Tensor:
    mask = torch.zeros(width, 1, 3, 3)
    for c in range(width):
        y, x = [(0, 1), (0, -1), (1, 0), (-1, 0)][c % 4]
        mask[c, 0, 1 + y, 1 + x] = 1
        if c % 8 >= 4:
            y, x = [(-1, 1), (1, -1), (1, 1), (-1, -1)][c % 4]
            mask[c, 0, 1 + y, 1 + x] = 1
    return mask


def msit(
    network: Any,
    channels: int,
    width: int,
    heads: int,
    rim: bool,
    scale: int,
    branches: int = 4,
    q_branches: int = 2,
    radius: int = 1,
    frequencies: int = 3,
    hidden: tuple[int, ...] = (8, 8),
) -> Run:
    """MSIT: 4 branches, 2 of the queries, radius 1, 3 frequencies, if nothing else is said."""

    def convolution(inputs: int, kernel: int) -> nn.Module:
        return Refined(inputs, inputs, kernel) if rim else conv(inputs, inputs, kernel)

    network.conv_ch = conv(channels, width, 1)
    network.amsno = tree(
        lem=tree(),
        proj=conv(width, width, 1),
        v=conv(width, width, 1, bias=False),
        s=conv(width, width, 1, bias=False),
        sim0=nn.Conv2d(width, 2 * width, 1, groups=branches),
        bn=nn.BatchNorm2d(2 * width),
        sim1=conv(2 * width, width, 1),
    )
    network.amsno.lem.mix_margin = nn.Parameter(torch.tensor(1.0), requires_grad=False)
    network.amsno.lem.mask = nn.Parameter(shifts(width), requires_grad=False)
    for g in range(branches):
        setattr(network.amsno, f"Ms_conv_{g + 1}", convolution(width // branches, 3 + 2 * g))
    query = tree(
        proj0=conv(width, width, 1),
        proj1=nn.Conv2d(width, 2 * width, 1, groups=width // q_branches),
        proj2=conv(2 * width, width, 1),
        bn=nn.BatchNorm2d(2 * width),
    )
    for g in range(q_branches):
        setattr(query, f"local_conv_{g + 1}", convolution(width // q_branches, 3 + 2 * g))
    network.multi_conv_qs = nn.ModuleList([query])
    network.conv_vs = nn.ModuleList([convolution(width, 3)])
    network.pb_encoder = tree(proj=nn.Linear(4 * frequencies, heads))
    side = 2 * radius + 1
    network.imnets = nn.ModuleList([mlp([side * side * width + 2, *hidden, 3], nn.GELU)])
    for norm in (network.amsno.bn, query.bn):
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked += 5

    def mixed(parts: Tensor, source: Any, name: str, count: int) -> Tensor:
        found = [
            getattr(source, f"{name}_{g + 1}")(part) for g, part in enumerate(parts.chunk(count, 1))
        ]
        return torch.cat(found, 1)

    def maps(x: Tensor) -> tuple[Tensor, Tensor]:
        part = network.amsno
        e = network.conv_ch(network.encoder.features(x))
        t = functional.pad(part.s(e), (1, 1, 1, 1), mode="circular")
        t = mixed(functional.conv2d(t, part.lem.mask, groups=width), part, "Ms_conv", branches)
        f = part.proj(part.v(e) * part.sim1(functional.gelu(part.bn(part.sim0(t)))))
        z = mixed(query.proj0(f), query, "local_conv", q_branches)
        return query.proj2(functional.gelu(query.bn(query.proj1(z)))), network.conv_vs[0](f)

    def run(image: Tensor) -> Tensor:
        x = (image - 0.5) / 0.5
        around = radius + 1
        shared, value = (functional.pad(m, [around] * 4)[0] for m in maps(x))
        beta = 2 ** torch.linspace(0, 10, frequencies) - 1
        height, wide = (n * scale for n in image.shape[2:])
        out = torch.zeros(3, height, wide)
        for i, y in enumerate(positions(image.shape[2], scale)):
            for j, z in enumerate(positions(image.shape[3], scale)):
                row, col = i // scale, j // scale
                # In maps that are padded by zeros, which also lie beyond their borders.
                q = bilinear(shared, y + around, z + around)
                logits, values = [], []
                for dy in range(-radius, radius + 1):
                    for dx in range(-radius, radius + 1):
                        down, across = 2 * (y - row - dy), 2 * (z - col - dx)
                        code = torch.cat([beta * down, beta * across])
                        bias = network.pb_encoder.proj(torch.cat([code.sin(), code.cos()]))
                        place = (row + dy + around, col + dx + around)
                        key = shared[:, place[0], place[1]]
                        products = (q * key).reshape(heads, -1).sum(1)
                        logits.append(products / (width // heads) ** 0.5 + bias)
                        values.append(value[:, place[0], place[1]].reshape(heads, -1))
                weights = torch.stack(logits).softmax(0)
                attended = (torch.stack(values) * weights[..., None]).flatten()
                cell = torch.full((2,), 2 / scale)
                low = bilinear(x[0], y, z)
                out[:, i, j] = network.imnets[0].layers(torch.cat([attended, cell])) + low
        return out[None] * 0.5 + 0.5

    return run


def lte(network: Any, width: int, inner: int, scale: int, layers: int = 3) -> Run:
    """LTE; beyond x4, the largest scale of its training, the cell stays as at x4."""
    network.coef, network.freq = conv(width, inner), conv(width, inner)
    network.phase = nn.Linear(2, inner // 2, bias=False)
    network.imnet = mlp([inner, *[inner] * layers, 3], nn.ReLU)

    def run(image: Tensor) -> Tensor:
        x = (image - 0.5) / 0.5
        feature = network.encoder.features(x)
        maps = [part(feature)[0].permute(1, 2, 0) for part in (network.coef, network.freq)]
        phase = network.phase(torch.full((2,), 2 / min(scale, 4)))
        u, v = (positions(size, scale) for size in image.shape[2:])
        answers, areas = [], []
        for step_y in (0, 1):
            row = (u.floor() + step_y).clamp(0, image.shape[2] - 1)
            for step_x in (0, 1):
                col = (v.floor() + step_x).clamp(0, image.shape[3] - 1)
                rel_y, rel_x = 2 * (u - row)[:, None], 2 * (v - col)
                here, turn = (part[row.long()][:, col.long()] for part in maps)
                angle = turn[..., 0::2] * rel_y[..., None] + turn[..., 1::2] * rel_x[..., None]
                angle = torch.pi * (angle + phase)
                waves = torch.cat([angle.cos(), angle.sin()], -1)
                answers.append(network.imnet.layers(here * waves).permute(2, 0, 1))
                areas.append((rel_y * rel_x).abs() + 1e-9)
        shares = [area / torch.stack(areas).sum(0) for area in areas[::-1]]
        out = sum(a * b for a, b in zip(answers, shares, strict=True))
        low = bilinear(x[0], u[:, None], v).permute(2, 0, 1)
        return (out + low)[None] * 0.5 + 0.5

    return run
