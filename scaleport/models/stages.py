"""Stages that upsamplers of both families are exported with: encode, and render at one scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import (
    IMAGE,
    SKIP,
    UPSCALED,
    Normalisation,
    Padding,
    Stage,
    border_dtype,
    image_constant,
)
from scaleport.models.layers import crop
from scaleport.tensor import TensorSpec


class EncodeStage(nn.Module):
    """Normalise a float32 image, run the encoder in ``dtype``, return float32 features.

    Args:
        encoder: the encoder's deploy form.
        norm: normalisation of its input.
        dtype: what the encoder computes in.
        lift: what of the upsampler runs at LR size, or None.
        skip: whether the normalised image is returned too.

    An encoder of windows gets the image continued, see :mod:`scaleport.models.padded_form`.
    """

    mean: Tensor
    padding: Padding = Padding()
    """The windows that the encoder needs."""
    keeps_padding: bool = False
    """Whether features and skip stay continued, and the rows and columns of the image follow."""

    def __init__(
        self,
        encoder: nn.Module,
        norm: Normalisation,
        dtype: torch.dtype,
        lift: nn.Module | None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self.lift = nn.Identity() if lift is None else lift.to(dtype)
        self.register_buffer("mean", image_constant(norm.mean, border_dtype(dtype)))
        self.inverse_std = 1 / norm.std
        self.dtype = dtype
        self.skip = skip

    def forward(
        self, image: Tensor, modulation: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Map float32[N, 3, H, W] in [0, 1] to float32 features at LR size.

        A lift may return several features; the skip comes after them, and what is kept of a
        continued image last. ``modulation`` is for encoders that depend on the scale.
        """
        height, width = image.shape[2], image.shape[3]
        x = image - self.mean
        if self.inverse_std != 1:
            x = x * self.inverse_std
        continued = self.padding.pad(x) if self.padding else x
        inputs = (continued,) if modulation is None else (continued, modulation)
        feature = self.encoder(*(value.to(self.dtype) for value in inputs))
        if self.padding and not self.keeps_padding:
            feature = crop(feature, height, width)
        lifted = self.lift(feature)
        border = border_dtype(self.dtype)
        parts = (lifted,) if isinstance(lifted, Tensor) else tuple(lifted)
        outputs = tuple(part.to(border) for part in parts)
        if self.skip:
            outputs = (*outputs, continued if self.keeps_padding else x)
        if self.keeps_padding:
            kept = [
                torch.arange(length, device=image.device, dtype=torch.int32).to(border)
                for length in (height, width)
            ]
            outputs = (*outputs, *kept)
        return outputs[0] if len(outputs) == 1 and isinstance(lifted, Tensor) else outputs


class RenderModule(nn.Module):
    """What the modules of render stages begin with: normalised values become pixels at their end.

    Args:
        norm: the network's normalisation.
        dtype: what the heavy part computes in.
    """

    mean: Tensor

    def __init__(self, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.border, self.std = dtype, border_dtype(dtype), norm.std
        self.register_buffer("mean", image_constant(norm.mean, self.border))

    def pixels(self, normalised: Tensor) -> Tensor:
        """Pixels of normalised ones, [N, 3, H, W] of the border's type."""
        return normalised * self.std + self.mean


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
    encoder: nn.Module,
    channels: int,
    norm: Normalisation,
    dtype: torch.dtype,
    skip: bool = False,
) -> Stage:
    """The encode stage of a network whose upsampler reads the encoder's features directly."""
    feature = TensorSpec("feature", "float32", ("N", channels, "H", "W"))
    outputs = (feature, SKIP) if skip else (feature,)
    return Stage("encode", EncodeStage(encoder, norm, dtype, None, skip), (IMAGE,), outputs)


def bound_stage(
    scale: int,
    kernel: Tensor,
    bias: Tensor | None,
    norm: Normalisation,
    dtype: torch.dtype,
) -> Stage:
    """The render stage of one native scale."""
    feature = TensorSpec("feature", "float32", ("N", kernel.shape[1], "H", "W"))
    module = BoundRender(kernel, bias, norm, dtype)
    return Stage(f"render_x{scale}", module, (feature,), (UPSCALED,))
