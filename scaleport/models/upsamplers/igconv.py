"""IGConv: one hyper-network that makes the sub-pixel kernel of any integer scale.

Source: arXiv 2408.09674, sections on IGConv, with the details of the authors' code where the
paper is silent (``min(s, max_s)``, which half of the frequencies belongs to which axis).
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid, subpixel_centres
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
from scaleport.models.stages import RenderModule, bound_stage, encode_stage
from scaleport.tensor import TensorSpec

KERNEL_AREA = 9


def subpixels(scale: int, device: torch.device) -> Tensor:
    """:func:`scaleport.grid.subpixel_centres` as a tensor float32[scale] on a device."""
    if device.type == "cuda":
        return _kept(scale, device)
    return torch.from_numpy(subpixel_centres(scale)).to(device)


@functools.lru_cache(maxsize=64)
def _kept(scale: int, device: torch.device) -> Tensor:
    # A recorded training step may not copy from the processor, and needs a tensor for autograd.
    with torch.inference_mode(False):
        return torch.from_numpy(subpixel_centres(scale)).to(device)


def waves(freq: Tensor, phase: Tensor, subpixel: Tensor) -> Tensor:
    """Cosines, then sines, of every kernel row at every sub-pixel.

    Args:
        freq: float[R, D]; the first half of D multiplies x (columns), the second y (rows).
        phase: float[D / 2].
        subpixel: float[S], centres of the sub-pixels of one axis on [-1, 1].

    Returns:
        float[R, S, S, D]: kernel row, then u (vertical), then v (horizontal).
    """
    half = freq.shape[1] // 2
    delta = subpixel.to(freq.dtype)
    theta_x = freq[:, None, None, :half] * delta[None, None, :, None]
    theta_y = freq[:, None, None, half:] * delta[None, :, None, None]
    theta = (theta_x + theta_y + phase) * math.pi
    return torch.cat([theta.cos(), theta.sin()], dim=-1)


def times_patches(kernel: Tensor, feature: Tensor) -> Tensor:
    """A 3x3 convolution with zero padding whose kernel is an input, as a matrix product.

    Such a convolution is slow or refused by some backends when its number of output channels is
    dynamic; a matrix product runs everywhere.

    Args:
        kernel: float[M, S, S, 9 C].
        feature: float[N, C, H, W] in the same type.

    Returns:
        float[N, M * S * S, H * W].
    """
    n, c, h, w = feature.shape
    m, s = kernel.shape[:2]
    padded = functional.pad(feature, (1, 1, 1, 1))
    taps = [padded[:, :, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    patches = torch.stack(taps, dim=2).reshape(n, c * KERNEL_AREA, h * w)
    return torch.matmul(kernel.reshape(m * s * s, c * KERNEL_AREA), patches)


@UPSAMPLERS.register("igconv")
class IGConv(Upsampler):
    """``pixel_shuffle(conv(f, K_s), s)`` with a bias-free 3x3 kernel ``K_s`` made from ``s``.

    For ``R = 9 * C`` kernel rows (row ``c * 9 + ky * 3 + kx``) and sub-pixel (u, v) of an s x s
    block, with ``d`` its centre on [-1, 1]::

        theta = freq_x[R] * d_x + freq_y[R] * d_y + phase(2 / min(s, max_s))
        K_s[rgb, u, v, R] = mlp(concat(cos(pi * theta), sin(pi * theta)) * amplitude[R])

    Parameters: 4608 C + 264 195 at the published latent width of 256 with 4 hidden layers.

    Args:
        in_channels: encoder width C.
        scales: native integer scales, those it is trained on.
        max_s: scale beyond which the phase input stays constant; the largest of ``scales``
            when left out.
        latent: width D of the hyper-network, even.
        hidden_layers: hidden layers of the hyper-network.
    """

    family: ClassVar[Literal["lattice", "query"]] = "lattice"
    rewrites: tuple[str, ...] = ("kernels made once per scale and written in",)

    def __init__(
        self,
        in_channels: int,
        scales: tuple[int, ...] | list[int] = (2, 3, 4),
        max_s: int | None = None,
        latent: int = 256,
        hidden_layers: int = 4,
    ) -> None:
        super().__init__()
        scales = tuple(sorted(set(scales)))
        if not scales or any(not isinstance(s, int) or s < 1 for s in scales):
            raise UsageError(f"igconv needs integer scales of at least 1, got {scales!r}")
        if latent < 2 or latent % 2 or hidden_layers < 1:
            raise UsageError("igconv needs an even latent width and at least 1 hidden layer")
        self.in_channels = in_channels
        self.native_scales = scales
        self.max_s = max(scales) if max_s is None else max_s
        rows = in_channels * KERNEL_AREA
        self.freq = nn.Parameter(torch.randn(rows, latent) * 0.02)
        self.amplitude = nn.Parameter(torch.randn(rows, latent) * 0.02)
        self.phase = nn.Linear(1, latent // 2)
        layers: list[nn.Module] = []
        for _ in range(hidden_layers):
            layers += [nn.Linear(latent, latent), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(latent, 3))

    def kernel(self, subpixel: Tensor, scale: Tensor) -> Tensor:
        """The kernel of one scale, as float[3, S, S, 9 C].

        Args:
            subpixel: float[S], centres of the sub-pixels of one axis on [-1, 1].
            scale: float[1], the scale s = S.
        """
        phase = self.phase(2 / scale.to(self.freq.dtype).clamp(max=float(self.max_s)))
        code = waves(self.freq, phase, subpixel) * self.amplitude[:, None, None, :]
        out: Tensor = self.mlp(code)
        return out.permute(3, 1, 2, 0)

    def prepare(self, scale: int) -> Constants:
        """Training form: ``kernel`` float[3, s, s, 9 C]."""
        subpixel = subpixels(scale, self.freq.device)
        return {"kernel": self.kernel(subpixel, torch.full_like(subpixel[:1], float(scale)))}

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, s * H, s * W]."""
        del grid
        feature = features["feature"]
        kernel = constants["kernel"]
        weight = kernel.reshape(-1, self.in_channels, 3, 3)
        y = functional.conv2d(feature, weight.to(feature.dtype), padding=1)
        return functional.pixel_shuffle(y, kernel.shape[1])

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: frozen kernels per native scale, and a general form for the others."""
        channels = self.in_channels
        kernel_port = TensorSpec("kernel", "float32", (3, "S", "S", KERNEL_AREA * channels))
        feature_port = TensorSpec("feature", "float32", ("N", channels, "H", "W"))
        return DeployForm(
            encode=encode_stage(encoder, channels, norm, dtype),
            prepare=prepare_stage(KernelStage(self), kernel_port),
            render=Stage(
                "render",
                GeneralRender(norm, dtype),
                (feature_port, kernel_port),
                (UPSCALED,),
            ),
            bound={
                scale: bound_stage(
                    scale,
                    self.prepare(scale)["kernel"].reshape(-1, channels, 3, 3),
                    None,
                    norm,
                    dtype,
                )
                for scale in self.native_scales
            },
        )


class KernelStage(nn.Module):
    """``prepare`` of IGConv as a graph, always float32."""

    def __init__(self, upsampler: IGConv) -> None:
        super().__init__()
        self.upsampler = upsampler

    def forward(self, subpixel: Tensor, scale: Tensor) -> Tensor:
        """Map float32[S] and float32[2] to the kernel float32[3, S, S, 9 C]."""
        return self.upsampler.kernel(subpixel, scale[0:1])


class GeneralRender(RenderModule):
    """Render with the kernel as an input: patches times kernel, then the shuffle."""

    def forward(self, feature: Tensor, kernel: Tensor) -> Tensor:
        """Map float32[N, C, H, W] and float32[3, S, S, 9 C] to float32[N, 3, S * H, S * W]."""
        n, _, h, w = feature.shape
        s = kernel.shape[1]
        y = times_patches(kernel.to(self.dtype), feature.to(self.dtype))
        # Rank 5 at most, for Core ML: colours join the batch for the shuffle.
        y = y.reshape(n * 3, s, s, h, w).permute(0, 3, 1, 4, 2).reshape(n, 3, h * s, w * s)
        return self.pixels(y.to(self.border))


def prepare_stage(module: nn.Module, *outputs: TensorSpec) -> Stage:
    """The prepare stage of a hyper-network that reads sub-pixel centres and the scale."""
    inputs = (TensorSpec("subpixel", "float32", ("S",)), TensorSpec("scale", "float32", (2,)))
    return Stage("prepare", module, inputs, outputs, "all of it: kernels are made once per scale")
