"""What lattice upsamplers share: the stages around a convolution and a pixel shuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import (
    IMAGE,
    UPSCALED,
    Normalisation,
    Port,
    Stage,
    border_dtype,
    image_constant,
)


class EncodeStage(nn.Module):
    """Normalise a float32 image, run the encoder in ``dtype``, return float32 features."""

    mean: Tensor

    def __init__(
        self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype, lift: nn.Module | None
    ) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self.lift = nn.Identity() if lift is None else lift.to(dtype)
        self.register_buffer("mean", image_constant(norm.mean, border_dtype(dtype)))
        self.inverse_std = 1 / norm.std
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        """Map float32[N, 3, H, W] in [0, 1] to float32 features at LR size."""
        x = image - self.mean
        if self.inverse_std != 1:
            x = x * self.inverse_std
        out: Tensor = self.lift(self.encoder(x.to(self.dtype)))
        return out.to(border_dtype(self.dtype))


class BoundRender(nn.Module):
    """Render at one integer scale with the kernel written in: one convolution, one shuffle."""

    def __init__(
        self, kernel: Tensor, bias: Tensor | None, norm: Normalisation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        out_channels, in_channels = kernel.shape[:2]
        self.scale = round((out_channels // 3) ** 0.5)
        # The output's de-normalisation is affine per colour, so the convolution absorbs it.
        mean = image_constant(norm.mean, kernel.dtype).flatten().repeat_interleave(self.scale**2)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, dtype=kernel.dtype)
        with torch.no_grad():
            self.conv.weight.copy_(kernel * norm.std)
            self.conv.bias.copy_(mean if bias is None else bias * norm.std + mean)  # type: ignore[union-attr]
        self.conv = self.conv.to(dtype)
        self.dtype = dtype

    def forward(self, feature: Tensor) -> Tensor:
        """Map float32[N, C, H, W] to float32[N, 3, s * H, s * W]."""
        y = self.conv(feature.to(self.dtype))
        return functional.pixel_shuffle(y, self.scale).to(border_dtype(self.dtype))


def encode_stage(
    encoder: nn.Module, channels: int, norm: Normalisation, dtype: torch.dtype
) -> Stage:
    """The encode stage of a network whose upsampler reads the encoder's features directly."""
    feature = Port("feature", ("N", channels, "H", "W"))
    return Stage("encode", EncodeStage(encoder, norm, dtype, None), (IMAGE,), (feature,))


def bound_stage(
    scale: int,
    kernel: Tensor,
    bias: Tensor | None,
    norm: Normalisation,
    dtype: torch.dtype,
) -> Stage:
    """The render stage of one native scale."""
    feature = Port("feature", ("N", kernel.shape[1], "H", "W"))
    module = BoundRender(kernel, bias, norm, dtype)
    return Stage(f"render_x{scale}", module, (feature,), (UPSCALED,))
