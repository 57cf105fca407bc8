"""LIIF: every output pixel decoded by an MLP from nearby features (arXiv 2012.09161).

The positions come from :mod:`scaleport.grid` as integer index and fraction. The published code
finds the neighbours with floats; both agree except on the central output line of the last LR row
or column at odd integer scales, where the published weights are rounding noise.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.base import (
    GRID_PORTS,
    IMAGE,
    UPSCALED,
    Constants,
    DeployForm,
    Features,
    Normalisation,
    Port,
    Stage,
    Upsampler,
    border_dtype,
    grid_tensors,
    image_constant,
)
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.upsamplers.lattice import EncodeStage

_QUERIES_PER_CHUNK = 65_536


def clamp_index(index: Tensor, length: int) -> Tensor:
    """Clamp int32 indices to ``0 .. length - 1`` without leaving int32 (also in Core ML)."""
    last = torch.full_like(index, length - 1)
    return torch.minimum(torch.maximum(index, torch.zeros_like(index)), last)


@UPSAMPLERS.register("liif")
class LIIF(Upsampler):
    """Local implicit image function with feature unfolding, local ensemble and cell decoding.

    Input of the MLP, in order: 9 C unfolded features (``c * 9 + ky * 3 + kx``), rel_y, rel_x,
    cell_y, cell_x, where one LR pixel is 2 units. 346 883 parameters at C = 64 with 4 hidden
    layers of 256.

    Args:
        in_channels: encoder width C.
        hidden: widths of the hidden layers.
    """

    family: ClassVar[Literal["lattice", "query"]] = "query"

    def __init__(
        self, in_channels: int, hidden: tuple[int, ...] | list[int] = (256, 256, 256, 256)
    ) -> None:
        super().__init__()
        if not hidden or any(width < 1 for width in hidden):
            raise UsageError(f"liif needs at least one hidden layer, got {hidden!r}")
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        width = 9 * in_channels + 4
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU()]
            width = out
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 3))

    def points(
        self,
        feature: Tensor,
        row_index: Tensor,
        row_offset: Tensor,
        col_index: Tensor,
        col_offset: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Training form at arbitrary positions.

        Args:
            feature: float[N, C, H, W].
            row_index: int[N, Q], integer part of each query's row.
            row_offset: float[N, Q], its fraction.
            col_index: int[N, Q].
            col_offset: float[N, Q].
            scale: float[N, 2], (scale_y, scale_x).

        Returns:
            float[N, Q, 3], normalised pixels.
        """
        _, c, h, w = feature.shape
        unfolded = functional.unfold(feature, 3, padding=1).transpose(1, 2)  # [N, H * W, 9 C]
        cell = (2 / scale).to(feature.dtype)[:, None, :].expand(-1, row_index.shape[1], -1)
        predictions, areas = [], []
        for step_y in (0, 1):
            row = clamp_index(row_index + step_y, h)
            rel_y = 2 * ((row_index - row).to(row_offset.dtype) + row_offset)
            for step_x in (0, 1):
                col = clamp_index(col_index + step_x, w)
                rel_x = 2 * ((col_index - col).to(col_offset.dtype) + col_offset)
                place = (row.long() * w + col.long())[..., None].expand(-1, -1, 9 * c)
                rel = torch.stack([rel_y, rel_x], dim=-1).to(feature.dtype)
                inputs = torch.cat([unfolded.gather(1, place), rel, cell], dim=-1)
                predictions.append(self.mlp(inputs))
                # Opposite corner: the weight of a neighbour is the area towards the other one.
                # Where clamping joins two neighbours they predict the same, and any split is right.
                weight_y = row_offset if step_y else 1 - row_offset
                weight_x = col_offset if step_x else 1 - col_offset
                areas.append((weight_y * weight_x).to(feature.dtype))
        out = torch.zeros_like(predictions[0])
        for prediction, area in zip(predictions, areas, strict=True):
            out = out + prediction * area[..., None]
        return out

    def points_hoisted(
        self,
        feature: Tensor,
        row_index: Tensor,
        row_offset: Tensor,
        col_index: Tensor,
        col_offset: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The same function of the same parameters as :meth:`points`, cheaper, for training.

        The first layer's feature columns run as a 3x3 convolution at LR size, so that each query
        gathers one row of the first hidden layer instead of 9 C features, and the last, linear
        layer runs once after the ensemble.
        """
        n, c, h, w = feature.shape
        first, last = self.mlp[0], self.mlp[-1]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        kernel = first.weight[:, : 9 * c].reshape(-1, c, 3, 3)
        base = functional.conv2d(feature, kernel, first.bias, padding=1)
        table = base.permute(0, 2, 3, 1).reshape(n * h * w, -1)
        image = torch.arange(n, device=feature.device)[:, None] * (h * w)
        cell = (2 / scale)[:, None, :].expand(-1, row_index.shape[1], -1)
        total: Tensor | None = None
        for step_y in (0, 1):
            row = clamp_index(row_index + step_y, h)
            rel_y = 2 * ((row_index - row).to(row_offset.dtype) + row_offset)
            for step_x in (0, 1):
                col = clamp_index(col_index + step_x, w)
                rel_x = 2 * ((col_index - col).to(col_offset.dtype) + col_offset)
                place = image + row.long() * w + col.long()
                rel = torch.cat([rel_y[..., None], rel_x[..., None], cell], dim=-1)
                position = functional.linear(rel.to(feature.dtype), first.weight[:, 9 * c :])
                gathered = table.index_select(0, place.flatten()).reshape(position.shape)
                hidden = self.mlp[1:-1](gathered + position)
                weight_y = row_offset if step_y else 1 - row_offset
                weight_x = col_offset if step_x else 1 - col_offset
                term = hidden * (weight_y * weight_x).to(hidden.dtype)[..., None]
                total = term if total is None else total + term
        out: Tensor = last(total)
        return out

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns]."""
        del constants
        feature = features["feature"]
        n = feature.shape[0]
        row_index, row_offset, col_index, col_offset, scale = grid_tensors(grid, feature.device)
        rows, cols = grid.shape
        scales = scale[None].expand(n, -1)
        band = max(1, _QUERIES_PER_CHUNK // cols)
        bands = []
        for start in range(0, rows, band):
            stop = min(rows, start + band)
            count = (stop - start) * cols

            def over_rows(t: Tensor, start: int = start, stop: int = stop) -> Tensor:
                return t[start:stop].repeat_interleave(cols)[None].expand(n, -1)

            def over_cols(t: Tensor, height: int = stop - start) -> Tensor:
                return t.repeat(height)[None].expand(n, -1)

            out = self.points(
                feature,
                over_rows(row_index),
                over_rows(row_offset.to(feature.dtype)),
                over_cols(col_index),
                over_cols(col_offset.to(feature.dtype)),
                scales,
            )
            assert out.shape[1] == count
            bands.append(out.transpose(1, 2).reshape(n, 3, stop - start, cols))
        return torch.cat(bands, dim=2)

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: first layer hoisted to LR size, separable gather, last layer merged."""
        lift = HoistedLayer(self)
        width = lift.conv.out_channels
        base = Port("base", ("N", "H", "W", width))
        return DeployForm(
            encode=Stage("encode", EncodeStage(encoder, norm, dtype, lift), (IMAGE,), (base,)),
            render=Stage(
                "render",
                LIIFRender(self, norm, dtype),
                (base, *GRID_PORTS),
                (UPSCALED,),
                "neighbour indices, relative coordinates, their tables, ensemble weights",
            ),
        )


class HoistedLayer(nn.Module):
    """The feature columns of the MLP's first layer as a 3x3 convolution at LR size."""

    def __init__(self, upsampler: LIIF) -> None:
        super().__init__()
        first = upsampler.mlp[0]
        assert isinstance(first, nn.Linear)
        c = upsampler.in_channels
        self.conv = nn.Conv2d(c, first.out_features, 3, padding=1, dtype=first.weight.dtype)
        with torch.no_grad():
            self.conv.weight.copy_(first.weight[:, : 9 * c].reshape(-1, c, 3, 3))
            assert self.conv.bias is not None
            self.conv.bias.copy_(first.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """Map [N, C, H, W] to channels-last [N, H, W, hidden], ready to be gathered."""
        out: Tensor = self.conv(feature)
        return out.permute(0, 2, 3, 1)


class LIIFRender(nn.Module):
    """Decode output pixels from the hoisted features.

    Relative coordinates enter the first layer linearly and per axis, so they become one table per
    output row and one per output column. The ensemble weights sum to one, so the last, linear
    layer is applied once after the weighted sum.
    """

    position: Tensor

    def __init__(self, upsampler: LIIF, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        linears = [layer for layer in upsampler.mlp if isinstance(layer, nn.Linear)]
        c = upsampler.in_channels
        # Columns rel_y, rel_x, cell_y, cell_x of the first layer, as float[4, hidden].
        self.register_buffer("position", linears[0].weight[:, 9 * c :].t().contiguous().clone())
        self.hidden = nn.ModuleList(layer.to(dtype) for layer in linears[1:-1])
        last = nn.Linear(linears[-1].in_features, 3, dtype=linears[-1].weight.dtype)
        with torch.no_grad():
            last.weight.copy_(linears[-1].weight * norm.std)
            mean = image_constant(norm.mean, last.weight.dtype).flatten()
            last.bias.copy_(linears[-1].bias * norm.std + mean)
        self.last = last.to(dtype)
        self.dtype = dtype

    def _table(self, index: Tensor, place: Tensor, offset: Tensor, axis: int) -> Tensor:
        offset = offset.to(self.position.dtype)
        rel = 2 * ((index - place).to(offset.dtype) + offset)
        return rel[:, None] * self.position[axis]

    def forward(
        self,
        base: Tensor,
        row_index: Tensor,
        row_offset: Tensor,
        col_index: Tensor,
        col_offset: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Map float32[N, H, W, hidden] and the grid to float32[N, 3, Ho, Wo]."""
        h, w = base.shape[1], base.shape[2]
        base = base.to(self.dtype)
        cell = ((2 / scale)[:, None] * self.position[2:4]).sum(dim=0)
        weight_y = row_offset.to(self.dtype)[None, :, None, None]
        weight_x = col_offset.to(self.dtype)[None, None, :, None]
        rows_out = []
        for step_y in (0, 1):
            row = clamp_index(row_index + step_y, h)
            table_y = self._table(row_index, row, row_offset, 0) + cell
            lines = base.index_select(1, row) + table_y.to(self.dtype)[None, :, None, :]
            cols_out = []
            for step_x in (0, 1):
                col = clamp_index(col_index + step_x, w)
                table_x = self._table(col_index, col, col_offset, 1)
                x = functional.relu(
                    lines.index_select(2, col) + table_x.to(self.dtype)[None, None, :, :]
                )
                for layer in self.hidden:
                    x = functional.relu(layer(x))
                cols_out.append(x * (weight_x if step_x else 1 - weight_x))
            rows_out.append((cols_out[0] + cols_out[1]) * (weight_y if step_y else 1 - weight_y))
        out: Tensor = self.last(rows_out[0] + rows_out[1])
        return out.permute(0, 3, 1, 2).to(border_dtype(self.dtype))
