"""IGConv+: IGConv with symmetric kernels and a branch that resamples the image.

Source: arXiv 2408.09674 (FGRep, IGSample), with the details of the authors' code where the paper is
silent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    SKIP,
    UPSCALED,
    Constants,
    DeployForm,
    Features,
    Normalisation,
    Stage,
    Tiling,
    border_dtype,
    image_constant,
)
from scaleport.models.positions import clamp_index
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import RenderModule, encode_stage
from scaleport.models.upsamplers.igconv import (
    KERNEL_AREA,
    IGConv,
    prepare_stage,
    subpixels,
    times_patches,
    waves,
)
from scaleport.tensor import TensorSpec

_FAR = float(1 << 24)
"""Offsets beyond the longest image; an integer of this size is still exact in float32."""

_PARTS = "sampling positions, the sampled image and its interpolation"


class GroupedLinear(nn.Module):
    """Two linear layers side by side, each from one half of the channels to one half."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // 2))
        nn.init.trunc_normal_(self.weight, std=0.01)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        if self.bias is not None:
            nn.init.trunc_normal_(self.bias, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map float[..., inputs] to float[..., outputs]."""
        half = self.weight.shape[0] // 2
        weights = (self.weight[:half], self.weight[half:])
        biases = (None, None) if self.bias is None else (self.bias[:half], self.bias[half:])
        inputs = x.split(self.weight.shape[1], dim=-1)  # type: ignore[no-untyped-call]
        parts = [
            functional.linear(part, weight, bias)
            for part, weight, bias in zip(inputs, weights, biases, strict=True)
        ]
        return torch.cat(parts, dim=-1)


class Sampler(nn.Module):
    """The hyper-network of IGSample: kernels for sampling offsets and their scopes.

    Two branches of half the width, held as one grouped network. Parameters: 4608 C + 67 840 at
    the published width of 256 with 2 hidden layers.
    """

    def __init__(self, in_channels: int, latent: int, hidden_layers: int) -> None:
        super().__init__()
        rows = in_channels * KERNEL_AREA
        self.freq = nn.Parameter(torch.randn(rows, latent) * 0.02)
        self.amplitude = nn.Parameter(torch.randn(rows, latent) * 0.02)
        self.phase = nn.Linear(1, latent // 2)
        layers: list[nn.Module] = []
        for _ in range(hidden_layers):
            layers += [GroupedLinear(latent, latent), nn.ReLU()]
        last = GroupedLinear(latent, 12, bias=False)
        with torch.no_grad():
            # All colours begin with one shift; scopes begin at sigmoid(0).
            last.weight[:6] = last.weight[:2].repeat(3, 1)
            last.weight[6:] = 0
        self.mlp = nn.Sequential(*layers, last)

    def kernel(self, subpixel: Tensor, scale: Tensor, max_s: float) -> Tensor:
        """Kernels float[12, S, S, 9 C]: 6 of offsets (x then y, each RGB), 6 of their scopes."""
        phase = self.phase(2 / scale.to(self.freq.dtype).clamp(max=max_s))
        both = waves(self.freq, phase, subpixel)
        # The branches do not take cosines and sines but even and odd frequencies.
        code = torch.cat([both[..., 0::2], both[..., 1::2]], dim=-1)
        out: Tensor = self.mlp(code * self.amplitude[:, None, None, :])
        return out.permute(3, 1, 2, 0)


@UPSAMPLERS.register("igconv-plus")
class IGConvPlus(IGConv):
    """``pixel_shuffle(conv(f, K_s), s) + sample(image, f, s)`` with symmetric 3x3 kernels.

    Every kernel, also those of the sampler, is the mean of its 8 rotations and reflections. Colour
    ``k`` of sub-pixel (u, v) of LR pixel (i, j) reads plane ``k`` of the image, bilinearly and with
    continued borders, at ``(j + dx, i + dy)``::

        d = offset * sigmoid(scope) / 2 + p,  p_x = (v - (s - 1) / 2) / s,  p_y likewise with u

    The image is the one before normalisation, and what is sampled is added after the conversion
    back to pixels; that is the published arithmetic for any mean and std.

    Parameters: 9216 C + 332 035 with the published widths; 921 859 at C = 64.

    Args:
        in_channels: encoder width C.
        scales: native integer scales, those it is trained on.
        max_s: scale beyond which the phase inputs stay constant; the largest of ``scales``
            when left out.
        latent: width of the hyper-network of the convolution, even.
        hidden_layers: its hidden layers.
        sample_latent: width of both branches of the sampler's hyper-network together, a multiple
            of 4.
        sample_layers: their hidden layers.
    """

    reads_skip = True
    tiling = Tiling(
        "approximate", "nothing bounds how far a sampling offset may reach", measurable=True
    )

    blend: Tensor

    rewrites: tuple[str, ...] = (
        "kernels made once per scale and written in",
        "one convolution for colours, offsets and scopes",
        "samples at LR size, one shuffle",
    )

    def __init__(
        self,
        in_channels: int,
        scales: tuple[int, ...] | list[int] = (2, 3, 4),
        max_s: int | None = None,
        latent: int = 256,
        hidden_layers: int = 4,
        sample_latent: int = 256,
        sample_layers: int = 2,
    ) -> None:
        super().__init__(in_channels, scales, max_s, latent, hidden_layers)
        if sample_latent < 4 or sample_latent % 4 or sample_layers < 1:
            raise UsageError(
                "igconv-plus needs a sampler width that is a multiple of 4 and at least 1 layer"
            )
        self.sampler = Sampler(in_channels, sample_latent, sample_layers)
        # Rotations and reflections of a 3x3 kernel mix its 4 edges, and its 4 corners.
        ring = torch.tensor([0, 1, 0, 1, 2, 1, 0, 1, 0])
        same = (ring[:, None] == ring[None, :]).float()
        self.register_buffer("blend", same / same.sum(dim=0), persistent=False)

    def kernels(self, subpixel: Tensor, scale: Tensor) -> Tensor:
        """All kernels of one scale, float[15, S, S, 9 C].

        3 for colours, then those of :meth:`Sampler.kernel`; arguments as of
        :meth:`IGConv.kernel`.
        """
        sampling = self.sampler.kernel(subpixel, scale, float(self.max_s))
        both = torch.cat([self.kernel(subpixel, scale), sampling])
        s = both.shape[1]
        taps = both.reshape(15 * s, s * self.in_channels, KERNEL_AREA)
        return torch.matmul(taps, self.blend.to(taps.dtype)).reshape(15, s, s, -1)

    def prepare(self, scale: int) -> Constants:
        """Training form: ``kernel`` float[15, s, s, 9 C] and ``position`` float[s], p above."""
        subpixel = subpixels(scale, self.freq.device)
        kernel = self.kernels(subpixel, torch.full_like(subpixel[:1], float(scale)))
        return {"kernel": kernel, "position": subpixel / 2}

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, s * H, s * W]."""
        del grid
        feature, image = features["feature"], features["unshifted"]
        kernel, position = constants["kernel"], constants["position"].to(image.dtype)
        n, _, h, w = image.shape
        s = kernel.shape[1]
        weight = kernel.reshape(-1, self.in_channels, 3, 3)
        y = functional.conv2d(feature, weight.to(feature.dtype), padding=1)
        colour, offset, scope = torch.split_with_sizes(y, [a * s * s for a in (3, 6, 6)], dim=1)
        y = torch.cat([colour, offset * scope.sigmoid()], dim=1)
        y = functional.pixel_shuffle(y, s).to(image.dtype)
        colour, shift_x, shift_y = torch.split_with_sizes(y, [3, 3, 3], dim=1)
        column = torch.arange(w, device=image.device, dtype=image.dtype).repeat_interleave(s)
        row = torch.arange(h, device=image.device, dtype=image.dtype).repeat_interleave(s)
        x = (2 * (column + position.repeat(w)) + 1) / w - 1
        z = (2 * (row + position.repeat(h)) + 1) / h - 1
        # Shifts are halved, and an image of n pixels is 2 wide in the coordinates of the sampler.
        across = torch.add(x, shift_x, alpha=1 / w)
        down = torch.add(z[:, None], shift_y, alpha=1 / h)
        places = torch.stack([across, down], dim=-1)
        sampled = functional.grid_sample(
            image.reshape(n * 3, 1, h, w),
            places.reshape(n * 3, h * s, w * s, 2),
            padding_mode="border",
            align_corners=False,
        )
        return colour + sampled.reshape(colour.shape)

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: one convolution C -> 15 s^2 per native scale, and a general form."""
        channels = self.in_channels
        feature = TensorSpec("feature", "float32", ("N", channels, "H", "W"))
        constants = (
            TensorSpec("kernel", "float32", (15, "S", "S", KERNEL_AREA * channels)),
            TensorSpec("position", "float32", ("S",)),
        )
        return DeployForm(
            encode=encode_stage(encoder, channels, norm, dtype, skip=True),
            prepare=prepare_stage(KernelsStage(self), *constants),
            render=Stage(
                "render",
                GeneralSample(norm, dtype),
                (feature, SKIP, *constants),
                (UPSCALED,),
                _PARTS,
            ),
            bound={
                scale: Stage(
                    f"render_x{scale}",
                    BoundSample(self, scale, norm, dtype),
                    (feature, SKIP),
                    (UPSCALED,),
                    _PARTS,
                )
                for scale in self.native_scales
            },
        )


class KernelsStage(nn.Module):
    """``prepare`` of IGConv+ as a graph, always float32."""

    def __init__(self, upsampler: IGConvPlus) -> None:
        super().__init__()
        self.upsampler = upsampler

    def forward(self, subpixel: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Map float32[S] and float32[2] to the kernels float32[15, S, S, 9 C] and float32[S]."""
        return self.upsampler.kernels(subpixel, scale[0:1]), subpixel * 0.5


def sample(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples beside every pixel of an image whose border pixels continue.

    A position is the pixel's own place, an integer, and a small offset, a float: only the offset
    is ever split into a whole number and a fraction, so that the last pixel of a large image is
    sampled as exactly as the first. (GridSample takes coordinates on [-1, 1], in which the
    fraction loses its digits as the image grows.) One gather fetches the four pixels around a
    position: the image is first laid out as one row of them per place, which is also faster than
    GridSample on CPUs.

    Args:
        image: float[N, 3, H, W].
        x: float[N, 3, K, H, W], offset in pixels to the right, K of them per pixel.
        y: float[N, 3, K, H, W], offset downwards.

    Returns:
        float[N, 3, K, H, W].
    """
    n, _, h, w = image.shape
    # Quad (i, j) of (H + 1) x (W + 1) joins rows i - 1 and i, columns j - 1 and j.
    row = torch.arange(h + 1, device=image.device, dtype=torch.int32)
    col = torch.arange(w + 1, device=image.device, dtype=torch.int32)
    lines = [
        image.index_select(2, clamp_index(row - 1, h)),
        image.index_select(2, clamp_index(row, h)),
    ]
    cols = (clamp_index(col - 1, w), clamp_index(col, w))
    corners = [line.index_select(3, at) for line in lines for at in cols]
    quads = torch.stack(corners, dim=-1).reshape(n * 3 * (h + 1) * (w + 1), 4)
    whole_x, whole_y = torch.floor(x), torch.floor(y)
    # Beyond the border all is the border's pixel: nothing is lost by staying within int32.
    step_x = whole_x.clamp(-_FAR, _FAR).to(torch.int32)
    step_y = whole_y.clamp(-_FAR, _FAR).to(torch.int32)
    at_x = clamp_index(step_x + col[:w] + 1, w + 1)
    at_y = clamp_index(step_y + row[:h, None] + 1, h + 1)
    plane = torch.arange(n * 3, device=image.device, dtype=torch.int32).reshape(n, 3, 1, 1, 1)
    place = (plane * (h + 1) + at_y) * (w + 1) + at_x
    found = quads.index_select(0, place.reshape(-1))
    a, b, c, d = (found[:, i].reshape(x.shape) for i in range(4))
    x, y = x - whole_x, y - whole_y
    top, bottom = a + (b - a) * x, c + (d - c) * x
    return top + (bottom - top) * y


class BoundSample(nn.Module):
    """Render at one integer scale: one convolution, the samples at LR size, one shuffle.

    Multiply-adds per LR pixel: 135 s^2 C, and about 12 per output value for the samples.
    """

    mean: Tensor
    position_x: Tensor
    position_y: Tensor

    def __init__(
        self, upsampler: IGConvPlus, scale: int, norm: Normalisation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        constants = upsampler.prepare(scale)
        kernel = constants["kernel"].reshape(-1, upsampler.in_channels, 3, 3)
        self.scale = scale
        self.std = norm.std
        self.dtype = dtype
        border = border_dtype(dtype)
        mean = image_constant(norm.mean, kernel.dtype)
        area = 3 * scale * scale
        self.conv = nn.Conv2d(upsampler.in_channels, 5 * area, 3, padding=1, dtype=kernel.dtype)
        with torch.no_grad():
            # Colours are converted back to pixels; offsets are halved. Scopes stay.
            factor = torch.ones(5 * area, 1, 1, 1, dtype=kernel.dtype)
            factor[:area], factor[area : 3 * area] = norm.std, 0.5
            self.conv.weight.copy_(kernel * factor)
            assert self.conv.bias is not None
            self.conv.bias.zero_()
            self.conv.bias[:area] = mean.flatten().repeat_interleave(scale * scale)
        self.conv = self.conv.to(dtype)
        self.register_buffer("mean", mean.to(border))
        position = constants["position"].to(border)
        shape = (1, 1, scale * scale, 1, 1)
        self.register_buffer("position_x", position.repeat(scale).reshape(shape))
        self.register_buffer("position_y", position.repeat_interleave(scale).reshape(shape))

    def forward(self, feature: Tensor, skip: Tensor) -> Tensor:
        """Map float32[N, C, H, W] and float32[N, 3, H, W] to float32[N, 3, s * H, s * W]."""
        n, _, h, w = skip.shape
        area = self.scale * self.scale
        border = border_dtype(self.dtype)
        y = self.conv(feature.to(self.dtype))
        colour = y[:, : 3 * area].to(border)
        shift = (y[:, 3 * area : 9 * area] * y[:, 9 * area :].sigmoid()).to(border)
        x = shift[:, : 3 * area].reshape(n, 3, area, h, w) + self.position_x
        z = shift[:, 3 * area :].reshape(n, 3, area, h, w) + self.position_y
        sampled = sample(skip * self.std + self.mean, x, z).reshape(n, 3 * area, h, w)
        return functional.pixel_shuffle(colour + sampled, self.scale)


class GeneralSample(RenderModule):
    """Render with the kernels as an input."""

    def forward(self, feature: Tensor, skip: Tensor, kernel: Tensor, position: Tensor) -> Tensor:
        """Map features, the image and the constants to float32[N, 3, S * H, S * W]."""
        n, _, h, w = feature.shape
        s = kernel.shape[1]
        border = self.border
        y = times_patches(kernel.to(self.dtype), feature.to(self.dtype))
        y = y.reshape(n, 15, s * s * h, w)
        colour = y[:, :3].to(border).reshape(n, 3, s * s, h * w)
        shift = (0.5 * y[:, 3:9] * y[:, 9:].sigmoid()).to(border)
        position = position.to(border)
        across = (position[None, :] + 0 * position[:, None]).reshape(s * s, 1, 1)
        down = (position[:, None] + 0 * position[None, :]).reshape(s * s, 1, 1)
        x = shift[:, :3].reshape(n, 3, s * s, h, w) + across
        z = shift[:, 3:].reshape(n, 3, s * s, h, w) + down
        sampled = sample(self.pixels(skip), x, z).reshape(n, 3, s * s, h * w)
        out = self.pixels(colour) + sampled
        # Rank 5 at most, for Core ML: colours join the batch for the shuffle.
        out = out.reshape(n * 3, s, s, h, w).permute(0, 3, 1, 4, 2)
        return out.reshape(n, 3, h * s, w * s)
