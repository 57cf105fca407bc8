"""Encoders of attention in windows, as their authors name their parts; see :mod:`authors`.

``features`` of SwinIR, SRFormer and EQSR take whole windows; :func:`continued` is what the
published networks do around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from authors import MEAN, conv, tree
from torch import Tensor, nn
from torch.nn import functional

Run = Callable[[Tensor], Tensor]


def windows(x: Tensor, size: int) -> Tensor:
    """[H, W, C] in whole windows: [windows, size * size, C]."""
    h, w, c = x.shape
    x = x.reshape(h // size, size, w // size, size, c).transpose(1, 2)
    return x.reshape(-1, size * size, c)


def unwindows(x: Tensor, size: int, height: int, width: int) -> Tensor:
    x = x.reshape(height // size, width // size, size, size, -1).transpose(1, 2)
    return x.reshape(height, width, -1)


def offsets(window: int) -> Tensor:
    """The relative positions of all pairs of a window, counted from the lower right."""
    place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    apart = place.flatten(1)[:, :, None] - place.flatten(1)[:, None, :] + window - 1
    return apart[0] * (2 * window - 1) + apart[1]


def regions(height: int, width: int, window: int, shift: int) -> Tensor:
    """Number of the part of a rolled map that a pixel of each window belongs to."""
    lines = [torch.zeros(length) for length in (height, width)]
    for line in lines:
        line[len(line) - window :], line[len(line) - shift :] = 1, 2
    return windows((3 * lines[0][:, None] + lines[1][None, :])[..., None], window)[..., 0]


def reflected(image: Tensor, window: int) -> Tensor:
    """The published ``check_image_size``: continued to the next whole window."""
    height, width = image.shape[2:]
    return functional.pad(image, (0, -width % window, 0, -height % window), mode="reflect")


def mirrored(image: Tensor, window: int) -> Tensor:
    """MambaIRv2: mirrored copies, cut at the next whole window."""
    height, width = (length + -length % window for length in image.shape[2:])
    image = torch.cat([image, image.flip(2)], 2)[:, :, :height]
    return torch.cat([image, image.flip(3)], 3)[..., :width]


def scripted(image: Tensor, window: int) -> Tensor:
    """SwinIR's test script, and then the network: mirrored copies, a whole window if need be."""
    height, width = ((length // window + 1) * window for length in image.shape[2:])
    image = torch.cat([image, image.flip(2)], 2)[:, :, :height]
    image = torch.cat([image, image.flip(3)], 3)[..., :width]
    return reflected(image, window)


def continued(run: Run, window: int, pad: Callable[[Tensor, int], Tensor] = reflected) -> Run:
    """A network that is run on whole windows, and whose pixels are cut afterwards."""

    def cut(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        whole = pad(image, window)
        out = run(whole)
        scale = out.shape[2] // whole.shape[2]
        return out[:, :, : height * scale, : width * scale]

    return cut


class Windowed(nn.Module):
    """SwinIR (``fold`` 1) and SRFormer (2), with one convolution as upsampler, or IGConv."""

    place = "upsample"
    mean = MEAN

    def __init__(
        self, width: int, depths: list[int], heads: int, window: int, size: int, fold: int
    ) -> None:
        super().__init__()
        self.heads, self.window, self.fold = heads, window, fold
        self.conv_first, self.conv_after_body = conv(3, width), conv(width, width)
        self.patch_embed, self.norm = tree(norm=nn.LayerNorm(width)), nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            tree(
                residual_group=tree(
                    blocks=nn.ModuleList(self.block(width, size, i % 2) for i in range(depth))
                ),
                conv=conv(width, width),
            )
            for depth in depths
        )

    def block(self, width: int, size: int, shifted: int) -> nn.Module:
        keys, fold = self.window // self.fold, self.fold
        attn = tree(proj=nn.Linear(width, width))
        index = offsets(keys)
        if fold == 1:
            attn.qkv = nn.Linear(width, 3 * width)
            attn.register_buffer("relative_position_index", index)
        else:
            attn.q, attn.kv = nn.Linear(width, width), nn.Linear(width, width // 2)
            index = index.reshape(keys, keys, -1).repeat_interleave(2, 0).repeat_interleave(2, 1)
            attn.register_buffer("aligned_relative_position_index", index.flatten(0, 1))
        attn.index = lambda: index.reshape(self.window**2, keys * keys)
        attn.relative_position_bias_table = nn.Parameter(
            torch.randn((2 * keys - 1) ** 2, self.heads)
        )
        mlp = tree(fc1=nn.Linear(width, 2 * width), fc2=nn.Linear(2 * width, width))
        if fold == 2:
            depthwise = conv(2 * width, 2 * width, 5, groups=2 * width)
            mlp.dwconv = tree(depthwise_conv=nn.Sequential(depthwise))
        made = tree(norm1=nn.LayerNorm(width), attn=attn, norm2=nn.LayerNorm(width), mlp=mlp)
        if shifted:
            made.register_buffer("attn_mask", self.mask(size, size))
        return made

    def mask(self, height: int, width: int) -> Tensor:
        """The published mask, which is made anew for images of another size than in training."""
        shift, fold = self.window // 2, self.fold
        own = regions(height, width, self.window, shift)
        half = -(-shift // fold)
        other = regions(height // fold, width // fold, self.window // fold, half)
        return torch.where(own[:, :, None] == other[:, None, :], 0.0, -100.0)

    def attend(self, attn: Any, x: Tensor, mask: Tensor | None) -> Tensor:
        """[windows, tokens, C] to the same shape."""
        _, _, c = x.shape
        d, keys = c // self.heads, self.window // self.fold
        if self.fold == 1:
            q, k, v = attn.qkv(x).split(c, -1)
        else:
            q = attn.q(x)
            # Tokens of 2x2 side by side become one, in reading order.
            kv = attn.kv(x).reshape(-1, keys, 2, keys, 2, c // 2).permute(0, 1, 3, 2, 4, 5)
            kv = kv.reshape(-1, keys * keys, 4, 2, c // 4)
            k, v = kv[:, :, :, 0].flatten(2), kv[:, :, :, 1].flatten(2)
        out = []
        for head in range(self.heads):
            part = slice(head * d, head * d + d)
            logits = q[..., part] @ k[..., part].transpose(1, 2) / d**0.5
            logits = logits + attn.relative_position_bias_table[attn.index(), head]
            logits = logits if mask is None else logits + mask
            out.append(logits.softmax(-1) @ v[..., part])
        result: Tensor = attn.proj(torch.cat(out, -1))
        return result

    def features(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(x)
        y = self.patch_embed.norm(shallow[0].permute(1, 2, 0))
        for layer in self.layers:
            z = y
            for block in layer.residual_group.blocks:
                z = self.run(block, z)
            y = y + layer.conv(z.permute(2, 0, 1)).permute(1, 2, 0)
        out: Tensor = shallow + self.conv_after_body(self.norm(y).permute(2, 0, 1))
        return out

    def run(self, block: Any, x: Tensor) -> Tensor:
        height, width, _ = x.shape
        shifted = hasattr(block, "attn_mask")
        mask = self.mask(height, width) if shifted else None
        shift = self.window // 2 if shifted else 0
        y = torch.roll(block.norm1(x), (-shift, -shift), (0, 1))
        y = self.attend(block.attn, windows(y, self.window), mask)
        x = x + torch.roll(unwindows(y, self.window, height, width), (shift, shift), (0, 1))
        y = functional.gelu(block.mlp.fc1(block.norm2(x)))
        if self.fold == 2:
            near = block.mlp.dwconv.depthwise_conv(y.permute(2, 0, 1))
            y = y + functional.gelu(near).permute(1, 2, 0)
        out: Tensor = x + block.mlp.fc2(y)
        return out


class HiT(nn.Module):
    """HiT-SIR, or HiT-SRF if convolutional; every layer continues its map to its windows."""

    place = "upsample"
    mean = MEAN

    def __init__(self, width: int, blocks: int, sizes: list[int], heads: int, extra: bool) -> None:
        super().__init__()
        self.sizes, self.heads, self.width = sizes, heads, width
        self.conv_first, self.conv_after_body = conv(3, width), conv(width, width)
        self.patch_embed, self.norm = tree(norm=nn.LayerNorm(width)), nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            tree(
                residual_group=tree(
                    blocks=nn.ModuleList(self.layer(width, size, extra) for size in sizes)
                ),
                conv=conv(width, width),
            )
            for _ in range(blocks)
        )

    def layer(self, width: int, size: int, extra: bool) -> nn.Module:
        small, inner = width // 5, max(1, width // 16)
        chain = [conv(width, small, 1), conv(small, small), conv(small, width, 1)]
        leaky = nn.LeakyReLU(0.2)
        pos = tree(pos_proj=nn.Linear(2, inner))
        for i, out in enumerate((inner, inner, self.heads), 1):
            step = nn.Sequential(nn.LayerNorm(inner), nn.ReLU(), nn.Linear(inner, out))
            setattr(pos, f"pos{i}", step)
        correlation = tree(
            qv=tree(
                conv=nn.Sequential(chain[0], leaky, chain[1], leaky, chain[2]),
                linear=conv(width, width, 1),
            ),
            proj=nn.Linear(width, width),
            spatial_linear=nn.Linear(max(1, size // 8) ** 2, 1),
            pos=pos,
        )
        mlp = tree(fc1=nn.Linear(width, 2 * width), fc2=nn.Linear(2 * width, width))
        if extra:
            depthwise = conv(2 * width, 2 * width, 5, groups=2 * width)
            mlp.dwconv = tree(depthwise_conv=nn.Sequential(depthwise))
        return tree(
            norm1=nn.LayerNorm(width), norm2=nn.LayerNorm(width), correlation=correlation, mlp=mlp
        )

    def correlate(self, part: Any, x: Tensor, size: int, code: Tensor | None = None) -> Tensor:
        """``code`` [size, size, C] is added to every window, as HiET does."""
        rows, cols, c = x.shape
        image = x.permute(2, 0, 1)
        if max(-rows % size - rows, -cols % size - cols) >= 0:
            # A short map is first reflected as a whole; the rest may then be negative: a cut.
            image = functional.pad(image, (0, cols - 1, 0, rows - 1), mode="reflect")
        rest = [(-n % size) - (m - n) for n, m in zip((rows, cols), image.shape[1:], strict=True)]
        image = image[:, : image.shape[1] + min(rest[0], 0), : image.shape[2] + min(rest[1], 0)]
        more = (0, max(rest[1], 0), 0, max(rest[0], 0))
        image = functional.pad(image, more, mode="reflect")
        height, width = image.shape[1:]
        if code is not None:
            again = code.repeat(height // size, width // size, 1)
            image = image + again.permute(2, 0, 1)
        qv = (part.qv.conv(image) * part.qv.linear(image)).permute(1, 2, 0)
        q, v = windows(qv, size).chunk(2, -1)
        half, ratio = c // 2, max(1, size // 8)
        keys, d = size // ratio, c // 2 // self.heads
        grouped = v.reshape(-1, keys, ratio, keys, ratio, half).permute(0, 1, 3, 5, 2, 4)
        pooled = part.spatial_linear(grouped.flatten(4)).reshape(-1, keys * keys, half)
        place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
        apart = place.flatten(1).T[:, None] - place.flatten(1).T[None]
        bias = part.pos.pos3(part.pos.pos2(part.pos.pos1(part.pos.pos_proj(apart.to(x.dtype)))))
        bias = bias.reshape(size * size, keys, ratio, keys, ratio, self.heads).mean((2, 4))
        bias = bias.reshape(size * size, keys * keys, self.heads)
        out = []
        for head in range(self.heads):
            one = slice(head * d, head * d + d)
            weight = q[..., one] @ pooled[..., one].transpose(1, 2) / d + bias[..., head]
            out.append(weight @ pooled[..., one])
        out.append(v @ (q.transpose(1, 2) @ v / size**2).transpose(1, 2))
        result: Tensor = part.proj(unwindows(torch.cat(out, -1), size, height, width))
        return result[:rows, :cols]

    def features(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(x)
        y = self.patch_embed.norm(shallow[0].permute(1, 2, 0))
        for layer in self.layers:
            z: Any = y
            for block, size in zip(layer.residual_group.blocks, self.sizes, strict=True):
                z = z + block.norm1(self.correlate(block.correlation, z, size))
                made: Any = functional.gelu(block.mlp.fc1(z))
                if hasattr(block.mlp, "dwconv"):
                    near = block.mlp.dwconv.depthwise_conv(made.permute(2, 0, 1))
                    made = made + functional.gelu(near).permute(1, 2, 0)
                z = z + block.norm2(block.mlp.fc2(made))
            y = y + layer.conv(z.permute(2, 0, 1)).permute(1, 2, 0)
        out: Tensor = shallow + self.conv_after_body(self.norm(y).permute(2, 0, 1))
        return out
