"""EQSR, as its authors name its parts; see :mod:`authors`."""

from __future__ import annotations

import math
from typing import Any

import torch
from authors import conv, tree
from authors_decoders import positions
from authors_windowed import Windowed, offsets, reflected, unwindows, windows
from torch import Tensor, nn
from torch.nn import functional


class Eqsr(Windowed):
    """EQSR; with an inner width of 8 in 4 groups, and 2 octaves, if nothing else is said."""

    def __init__(
        self,
        width: int,
        depths: list[int],
        heads: int,
        window: int,
        size: int,
        inner: int = 8,
        groups: int = 4,
        octaves: int = 2,
    ) -> None:
        self.octaves, self.groups = octaves, groups
        super().__init__(width, depths, heads, window, size, 1)
        wide = window + window // 2
        place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        other = torch.cartesian_prod(torch.arange(wide), torch.arange(wide))
        apart = other[None] - place[:, None] + window - wide + 1
        self.register_buffer("relative_position_index_SA", offsets(window))
        self.register_buffer(
            "relative_position_index_OCA", apart[..., 0] * (window + wide - 1) + apart[..., 1]
        )
        self.wide = wide
        for layer in self.layers:
            group: Any = layer.residual_group
            for block in group.blocks:
                del block.attn.relative_position_index
                if hasattr(block, "attn_mask"):
                    # The published network makes its masks anew each time.
                    block.register_buffer("attn_mask", block.attn_mask, persistent=False)
            gate = nn.Sequential(
                nn.Identity(),
                nn.Linear(width, width // 4, bias=False),
                nn.SiLU(),
                nn.Linear(width // 4, width, bias=False),
                nn.Sigmoid(),
            )
            group.mbconv = tree(
                net1=conv(width, width, 1),
                norm1=nn.Sequential(nn.LayerNorm(width), nn.GELU()),
                net2=tree(to_style=nn.Linear(1 + 2 * self.octaves, width)),
                norm2=nn.Sequential(nn.LayerNorm(width), nn.GELU()),
                net3=nn.Sequential(tree(gate=gate), conv(width, width, 1)),
            )
            group.mbconv.net2.weight = nn.Parameter(torch.randn(width, width, 3, 3))
            group.overlap_attn = tree(
                norm1=nn.LayerNorm(width),
                qkv=nn.Linear(width, 3 * width),
                proj=nn.Linear(width, width),
                norm2=nn.LayerNorm(width),
                mlp=tree(fc1=nn.Linear(width, 2 * width), fc2=nn.Linear(2 * width, width)),
            )
            group.overlap_attn.relative_position_bias_table = nn.Parameter(
                torch.randn((window + wide - 1) ** 2, heads)
            )
        self.upsample = tree(
            head=nn.Sequential(conv(width + 2 + 4 * self.octaves, inner, 1)),
            to_rgb=nn.Sequential(nn.ReLU(), conv(inner, 3, 1)),
            rbf1=tree(),
        )
        self.upsample.rbf1.lengthscale = nn.Parameter(torch.tensor(3.0))
        for i in (1, 2):
            setattr(self.upsample, f"inv{i}", self.kriging(inner))

    def kriging(self, inner: int) -> nn.Module:
        return tree(
            norm1=tree(body=nn.LayerNorm(inner)),
            conv1=conv(inner, inner, 1),
            attn=tree(
                seblock=nn.Sequential(
                    conv(inner, inner // 4), nn.ReLU(), conv(inner // 4, 9 * self.groups, 1)
                )
            ),
            conv2=conv(inner, inner, 1),
            norm2=tree(body=nn.LayerNorm(inner)),
            ffn=tree(
                conv1=conv(inner, 2 * inner, 1),
                conv2=conv(2 * inner, inner, 1),
                CA=tree(conv=nn.Conv1d(1, 1, 5, padding=2, bias=False)),
            ),
        )

    def code(self, x: Tensor) -> Tensor:
        """[K] to [K, ...], as the paper orders it for each of the K.

        The published code turns by up to 2^39 in single precision, where the angle is noise; these
        are the sines of its argument, exactly.
        """
        parts = [x]
        tenth = (x.float() * 0.1).double()
        for i in range(self.octaves):
            angle = torch.remainder(2.0**i * tenth, 2) * math.pi
            parts += [angle.sin().to(x.dtype), angle.cos().to(x.dtype)]
        return torch.stack(parts, 1)

    def adapted(self, part: Any, x: Tensor, height: int) -> Tensor:
        """[H, W, C]; ``height`` of the output."""

        def point(layer: Any, value: Tensor) -> Tensor:
            out: Tensor = layer(value.permute(2, 0, 1)).permute(1, 2, 0)
            return out

        x = point(part.net1, x)
        style = part.net2.to_style(self.code(torch.tensor([2 / height])))
        kernel = part.net2.weight * (1 + style[:, :, None, None])
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        y = part.norm1(x).permute(2, 0, 1)[None]
        x = x + functional.conv2d(y, kernel, padding=1)[0].permute(1, 2, 0)
        y = part.norm2(x)
        return x + point(part.net3[1], y * part.net3[0].gate(y.mean((0, 1))))

    def overlapping(self, part: Any, x: Tensor) -> Tensor:
        height, width, c = x.shape
        q, k, v = part.qkv(part.norm1(x)).split(c, -1)
        reach, w = (self.wide - self.window) // 2, self.window
        k, v = (functional.pad(m, (0, 0, reach, reach, reach, reach)) for m in (k, v))

        def around(m: Tensor) -> Tensor:
            found = [
                m[i : i + self.wide, j : j + self.wide].flatten(0, 1)
                for i in range(0, height, w)
                for j in range(0, width, w)
            ]
            return torch.stack(found)

        q, k, v, d = windows(q, w), around(k), around(v), c // self.heads
        bias = part.relative_position_bias_table[self.relative_position_index_OCA]
        out = []
        for head in range(self.heads):
            one = slice(head * d, head * d + d)
            logits = q[..., one] @ k[..., one].transpose(1, 2) / d**0.5 + bias[..., head]
            out.append(logits.softmax(-1) @ v[..., one])
        x = x + part.proj(unwindows(torch.cat(out, -1), w, height, width))
        made: Tensor = x + part.mlp.fc2(functional.gelu(part.mlp.fc1(part.norm2(x))))
        return made

    def whole(self, image: Tensor, scale: int) -> Tensor:
        """The image is continued to whole windows; features, not pixels, are cut."""
        x = reflected(image, self.window) - self.mean
        shallow = self.conv_first(x)
        y = self.patch_embed.norm(shallow[0].permute(1, 2, 0))
        for layer in self.layers:
            group: Any = layer.residual_group
            z = self.adapted(group.mbconv, y, image.shape[2] * scale)
            for block in group.blocks:
                z = self.run(block, z)
            z = self.overlapping(group.overlap_attn, z)
            last: Any = layer.conv
            y = y + last(z.permute(2, 0, 1)).permute(1, 2, 0)
        feature = shallow + self.conv_after_body(self.norm(y).permute(2, 0, 1))
        feature = feature[:, :, : image.shape[2], : image.shape[3]]
        return self.rendered(feature[0], scale) + self.mean

    def rendered(self, feature: Tensor, scale: int) -> Tensor:
        part = self.upsample
        rows, cols = (torch.arange(n * scale) // scale for n in feature.shape[1:])
        y = 2 * (positions(feature.shape[1], scale) - rows)
        x = 2 * (positions(feature.shape[2], scale) - cols)
        pairs = [
            code
            for a, b in zip(self.code(x).T, self.code(y).T, strict=True)
            for code in (a.expand(len(y), -1), b[:, None].expand(-1, len(x)))
        ]
        z = torch.cat([feature[:, rows][:, :, cols], torch.stack(pairs)])[None]
        z = functional.relu(part.head(z))
        prior = torch.zeros(9, len(y), len(x))
        for tap in range(9):
            for i in range(len(y)):
                for j in range(len(x)):
                    a, b = i + tap // 3 - 1, j + tap % 3 - 1
                    if 0 <= a < len(y) and 0 <= b < len(x):
                        down = 2 * (rows[a] - (i + 0.5) / scale + 0.5)
                        across = 2 * (cols[b] - (j + 0.5) / scale + 0.5)
                        square = down**2 + across**2
                        prior[tap, i, j] = torch.exp(-square / (2 * part.rbf1.lengthscale**2))
        made = functional.relu(self.involved(part.inv1, z, prior))
        made = functional.relu(self.involved(part.inv2, made, prior))
        out: Tensor = part.to_rgb(made + z)
        return out

    def involved(self, part: Any, x: Tensor, prior: Tensor) -> Tensor:
        def norm(layer: Any, value: Tensor) -> Tensor:
            out: Tensor = layer.body(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return out

        y = part.conv1(norm(part.norm1, x))
        height, width = y.shape[2:]
        kernel = part.attn.seblock(y).reshape(self.groups, 1, 9, height, width) * prior
        near = functional.unfold(y, 3, padding=1).reshape(self.groups, -1, 9, height, width)
        x = x + part.conv2((near * kernel).sum(2).reshape(1, -1, height, width))
        y = part.ffn.conv2(functional.gelu(part.ffn.conv1(norm(part.norm2, x))))
        factor = part.ffn.CA.conv(y.mean((2, 3))[:, None])[:, 0, :, None, None]
        result: Tensor = x + y * factor
        return result
