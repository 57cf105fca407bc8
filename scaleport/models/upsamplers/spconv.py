"""SPConv: sub-pixel convolution at one fixed scale (Shi et al. 2016, arXiv 1609.05158)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import Constants, DeployForm, Features, Normalisation, Upsampler
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import bound_stage, encode_stage


@UPSAMPLERS.register("spconv")
class SPConv(Upsampler):
    """``pixel_shuffle(conv3x3(C -> 3 s^2)(f), s)``; 27 s^2 C + 3 s^2 parameters."""

    family: ClassVar[Literal["lattice", "query"]] = "lattice"

    def __init__(self, in_channels: int, scale: int) -> None:
        super().__init__()
        if not isinstance(scale, int) or scale < 1:
            raise UsageError(f"spconv needs an integer scale of at least 1, got {scale!r}")
        self.scale = scale
        self.native_scales = (scale,)
        self.conv = nn.Conv2d(in_channels, 3 * scale * scale, 3, padding=1)

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, s * H, s * W]."""
        del grid, constants
        return functional.pixel_shuffle(self.conv(features["feature"]), self.scale)

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: the same convolution with the de-normalisation absorbed."""
        stage = bound_stage(self.scale, self.conv.weight, self.conv.bias, norm, dtype)
        channels = self.conv.in_channels
        return DeployForm(
            encode=encode_stage(encoder, channels, norm, dtype),
            render=None,
            bound={self.scale: stage},
        )
