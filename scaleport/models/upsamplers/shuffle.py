"""Nothing but a pixel shuffle, for encoders that make all sub-pixels themselves."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    UPSCALED,
    Constants,
    DeployForm,
    Features,
    Normalisation,
    Stage,
    Upsampler,
)
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import RenderModule, encode_stage
from scaleport.tensor import TensorSpec


@UPSAMPLERS.register("shuffle")
class Shuffle(Upsampler):
    """``pixel_shuffle(f, s)``; no parameters.

    Args:
        in_channels: encoder width, 3 s^2.
        scale: the fixed scale s.
    """

    family: ClassVar[Literal["lattice", "query"]] = "lattice"

    def __init__(self, in_channels: int, scale: int) -> None:
        super().__init__()
        if not isinstance(scale, int) or scale < 1 or in_channels != 3 * scale * scale:
            raise UsageError(f"shuffle by {scale!r} does not fit {in_channels} channels")
        self.native_scales = (scale,)

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, s * H, s * W]."""
        del grid, constants
        return functional.pixel_shuffle(features["feature"], self.native_scales[0])

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: the shuffle, and the conversion to pixels."""
        (scale,) = self.native_scales
        channels = 3 * scale * scale
        stage = Stage(
            f"render_x{scale}",
            ShuffleRender(scale, norm, dtype),
            (TensorSpec("feature", "float32", ("N", channels, "H", "W")),),
            (UPSCALED,),
        )
        encode = encode_stage(encoder, channels, norm, dtype)
        return DeployForm(encode=encode, render=None, bound={scale: stage})


class ShuffleRender(RenderModule):
    """The render stage."""

    def __init__(self, scale: int, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__(norm, dtype)
        self.scale = scale

    def forward(self, feature: Tensor) -> Tensor:
        """Map float32[N, 3 s^2, H, W] to float32[N, 3, s * H, s * W]."""
        return self.pixels(functional.pixel_shuffle(feature, self.scale))
