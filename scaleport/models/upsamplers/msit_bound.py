"""The render stage of MSIT at one integer scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from scaleport.models.base import UPSCALED, Normalisation, Stage
from scaleport.models.upsamplers.msit_deploy import FLOAT32_PARTS, Decoder, feature_ports

if TYPE_CHECKING:
    from scaleport.models.upsamplers.msit import MSIT


class BoundMSIT(Decoder):
    """Render at one integer scale s: the s^2 queries of a pixel share keys and first layer.

    The decoder's first layer runs at LR size, one key at a time: 3.2 million multiply-adds per LR
    pixel, and 0.1 million per output pixel to weigh its results.
    """

    phases: Tensor
    first: Tensor

    def __init__(
        self, upsampler: MSIT, norm: Normalisation, dtype: torch.dtype, scale: int
    ) -> None:
        super().__init__(upsampler, norm, dtype)
        self.scale = scale
        # Distances of the sub-pixels to the pixel's centre.
        self.distances = [(2 * v + 1 - scale) / (2 * scale) for v in range(scale)]
        fractions = torch.tensor(self.distances, dtype=torch.float64).to(self.border)
        down = self.bias(fractions, self.bias_y) + self.constant
        across = self.bias(fractions, self.bias_x)
        # [s, s, side, side, heads]
        phases = down[:, None, :, None] + across[None, :, None]
        self.register_buffer("phases", phases.clone())
        ratio = torch.tensor([scale, scale], dtype=self.border)
        self.register_buffer("first", self.shift(ratio).clone())
        depth = self.width // self.heads
        keys = self.keys.reshape(self.side**2, self.heads, depth, -1)
        self.keys = keys.contiguous()

    def _taps(self, distance: float) -> list[tuple[int, float]]:
        """Pixels that a query is interpolated from, relative to its own, and their weights."""
        if distance < 0:
            return [(-1, -distance), (0, 1 + distance)]
        return [(0, 1 - distance), (1, distance)] if distance else [(0, 1.0)]

    def _line(self, products: Tensor, distance: float) -> Tensor:
        """Rows of one phase: [N H, W + 2, side, span heads] from [N, H + 2, W + 2, ...]."""
        n, h, w = products.shape[0], products.shape[1] - 2, products.shape[2]
        parts = []
        channels = self.side * (self.side + 2) * self.heads
        for step, weight in self._taps(distance):
            skipped = (1 - step) * (self.side + 2) * self.heads
            found = products[:, 1 + step : 1 + step + h, :, skipped : skipped + channels]
            parts.append(found * weight)
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total.reshape(n * h, w, self.side, (self.side + 2) * self.heads)

    def _cells(self, line: Tensor, distance: float) -> Tensor:
        """Columns of one phase: logits [N H, W, side, side heads], without bias."""
        w = line.shape[1] - 2
        parts = []
        for step, weight in self._taps(distance):
            skipped = (1 - step) * self.heads
            stop = skipped + self.side * self.heads
            parts.append(line[:, 1 + step : 1 + step + w, :, skipped:stop] * weight)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def forward(self, products: Tensor, value: Tensor, skip: Tensor) -> Tensor:
        """Map float32 maps at LR size to float32[N, 3, s H, s W]."""
        n, h, w = value.shape[0], value.shape[1], value.shape[2]
        s, side, heads = self.scale, self.side, self.heads
        padded = functional.pad(products, (0, 0, 1, 1, 1, 1))
        phases = []
        for v, down in enumerate(self.distances):
            line = self._line(padded, down)
            for u, across in enumerate(self.distances):
                logits = self._cells(line, across) + self.phases[v, u].reshape(side, -1)
                logits = logits.reshape(n * h * w, side * side, heads)
                weights = torch.softmax(logits, dim=1).to(self.dtype)
                phases.append(weights.reshape(n * h * w, side * side * heads))
        weights = torch.stack(phases, dim=1)  # [N H W, s^2, keys heads]
        r = self.radius
        around = functional.pad(value.to(self.dtype), (0, 0, r, r, r, r))
        depth = self.width // heads
        total = self.first
        for ky in range(side):
            made = []
            for kx in range(side):
                found = around[:, ky : ky + h, kx : kx + w]
                found = found.reshape(n * h * w, heads, depth).transpose(0, 1)
                made.append(torch.matmul(found, self.keys[ky * side + kx]).transpose(0, 1))
            start = ky * side * heads
            row = weights[:, :, start : start + side * heads]
            total = total + torch.matmul(row, torch.cat(made, dim=1))
        out = self.decode(total).reshape(n * h, w, s, s * 3).transpose(1, 2)
        out = out.reshape(n, h * s, w * s, 3).permute(0, 3, 1, 2)
        low = functional.interpolate(
            skip, scale_factor=float(s), mode="bilinear", align_corners=False
        )
        return out.to(self.border) + low * self.std + self.mean


def bound_stage(upsampler: MSIT, norm: Normalisation, dtype: torch.dtype, scale: int) -> Stage:
    """Decoder for one integer scale, for whole images or tiles of LR pixels."""
    with torch.no_grad():
        module = BoundMSIT(upsampler, norm, dtype, scale)
    name = f"render_x{scale}"
    return Stage(name, module, feature_ports(upsampler), (UPSCALED,), FLOAT32_PARTS)
