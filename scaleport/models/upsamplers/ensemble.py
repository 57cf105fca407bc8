"""Decoders that ask the LR pixels around an output pixel: what LIIF and IPE-LIIF share.

The positions come from :mod:`scaleport.grid` as integer index and fraction. The published code
finds the neighbours with floats; both agree except on the central output line of the last LR row
or column at odd integer scales, where the published weights are rounding noise.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models.base import (
    GRID_PORTS,
    IMAGE,
    UPSCALED,
    DeployForm,
    Normalisation,
    Stage,
    border_dtype,
    image_constant,
)
from scaleport.models.positions import GridTensors, Positions, clamp_index, nearest_place
from scaleport.models.stages import EncodeStage
from scaleport.models.upsamplers.query import PointUpsampler, unfolded
from scaleport.tensor import TensorSpec

_UNFOLDED = 9


@dataclass(frozen=True)
class Neighbour:
    """One of the four LR pixels around queries, each tensor [N, Q].

    ``row_distance`` and ``col_distance`` are the queries' indices minus the neighbour's: 0 or -1.
    """

    row: Tensor
    col: Tensor
    row_distance: Tensor
    col_distance: Tensor
    weight: Tensor


def neighbours(size: tuple[int, int], at: Positions) -> Iterator[Neighbour]:
    """The four neighbours of queries, top left first, with the weights of the ensemble."""
    for step_y in (0, 1):
        row = clamp_index(at.row_index + step_y, size[0])
        for step_x in (0, 1):
            col = clamp_index(at.col_index + step_x, size[1])
            # Opposite corner: the weight of a neighbour is the area towards the other one.
            # Where clamping joins two neighbours they predict the same, and any split is right.
            weight_y = at.row_offset if step_y else 1 - at.row_offset
            weight_x = at.col_offset if step_x else 1 - at.col_offset
            yield Neighbour(row, col, at.row_index - row, at.col_index - col, weight_y * weight_x)


def nearest(size: tuple[int, int], at: Positions) -> Iterator[Neighbour]:
    """The LR pixel nearest to queries, the later one of two, with a weight of 1."""
    row = nearest_place(at.row_index, at.row_offset, size[0])
    col = nearest_place(at.col_index, at.col_offset, size[1])
    one = torch.ones_like(at.row_offset)
    yield Neighbour(row, col, at.row_index - row, at.col_index - col, one)


class LocalEnsemble(PointUpsampler):
    """An MLP on the features of a neighbour and a code of the query's position.

    Input of the MLP: 9 C unfolded features (``c * 9 + ky * 3 + kx``), then the position. Where
    ``skips`` is set, each later hidden layer reads ``[hidden, input]``, else only the hidden.
    Where ``ensemble`` is not set, the nearest pixel alone predicts; where ``unfold`` is not set,
    from its own C features.
    """

    in_channels: int
    skips: bool = False
    ensemble: bool = True
    unfold: bool = True
    scaled: bool = True
    """Whether the code of a position depends on the scale."""
    rewrites: tuple[str, ...] = (
        "layers that read features hoisted to LR size",
        "positions as tables per axis",
    )

    @abc.abstractmethod
    def linears(self) -> list[nn.Linear]:
        """The layers of the MLP; the last one makes the pixel."""

    @abc.abstractmethod
    def position(self, at: GridTensors, near: Neighbour) -> Tensor:
        """Code of the places of queries as a neighbour sees them, float[N, Q, positions]."""

    @property
    def area(self) -> int:
        """Pixels whose features a neighbour reads: those of its kernel."""
        return _UNFOLDED if self.unfold else 1

    def kernel(self) -> Tensor:
        """The feature columns of the layers that read the input, as one convolution's kernel."""
        c, side = self.in_channels, 3 if self.unfold else 1
        weights = [layer.weight[:, at : at + self.area * c] for layer, at in self.readers()]
        return torch.cat(weights).reshape(-1, c, side, side)

    def neighbours(self, size: tuple[int, int], at: Positions) -> Iterator[Neighbour]:
        """The LR pixels that predict queries."""
        return (neighbours if self.ensemble else nearest)(size, at)

    def readers(self) -> list[tuple[nn.Linear, int]]:
        """Layers that read the input, each with the column at which the input begins."""
        hidden = self.linears()[:-1]
        later = [(layer, last.out_features) for last, layer in pairwise(hidden)]
        return [(hidden[0], 0), *(later if self.skips else [])]

    def points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """Training form at queries, see :meth:`PointUpsampler.points`."""
        _, c, h, w = feature.shape
        columns = unfolded(feature) if self.unfold else feature.flatten(2).transpose(1, 2)
        *hidden, last = self.linears()
        total: Tensor | None = None
        for near in self.neighbours((h, w), at):
            place = (near.row.long() * w + near.col.long())[..., None]
            place = place.expand(-1, -1, self.area * c)
            code = self.position(at, near)
            inputs = torch.cat([columns.gather(1, place), code.to(feature.dtype)], dim=-1)
            x = inputs
            for count, layer in enumerate(hidden):
                x = torch.cat([x, inputs], dim=-1) if count and self.skips else x
                x = functional.relu(layer(x))
            term = last(x) * near.weight.to(feature.dtype)[..., None]
            total = term if total is None else total + term
        assert total is not None
        return total

    def train_points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """The same function of the same parameters as :meth:`points`, cheaper.

        The feature columns of every layer that reads the input run as 3x3 convolutions at LR
        size, so that each query gathers hidden values instead of 9 C features, and the last,
        linear layer runs once after the ensemble.
        """
        n, c, h, w = feature.shape
        *hidden, last = self.linears()
        readers = self.readers()
        bias = torch.cat([layer.bias for layer, _ in readers])
        base = functional.conv2d(feature, self.kernel(), bias, padding=int(self.unfold))
        table = base.permute(0, 2, 3, 1).reshape(n * h * w, -1)
        image = torch.arange(n, device=feature.device)[:, None] * (h * w)
        position = torch.cat([layer.weight[:, at + self.area * c :] for layer, at in readers])
        widths = [layer.out_features for layer, _ in readers]
        total: Tensor | None = None
        for near in self.neighbours((h, w), at):
            place = image + near.row.long() * w + near.col.long()
            code = self.position(at, near)
            code = functional.linear(code.to(feature.dtype), position)
            gathered = table.index_select(0, place.flatten()).reshape(code.shape)
            read = torch.split(gathered + code, widths, dim=-1)
            x = functional.relu(read[0])
            for count, layer in enumerate(hidden[1:], start=1):
                if count < len(readers):
                    plain = functional.linear(x, layer.weight[:, : readers[count][1]])
                    x = functional.relu(plain + read[count])
                else:
                    x = functional.relu(layer(x))
            term = x * near.weight.to(x.dtype)[..., None]
            total = term if total is None else total + term
        out: Tensor = last(total)
        return out

    @abc.abstractmethod
    def renderer(self, norm: Normalisation, dtype: torch.dtype) -> EnsembleRender:
        """The module of the render stage."""

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: features hoisted to LR size, positions as tables per axis."""
        lift = HoistedLayers(self)
        base = TensorSpec("base", "float32", ("N", "H", "W", lift.conv.out_channels))
        return DeployForm(
            encode=Stage("encode", EncodeStage(encoder, norm, dtype, lift), (IMAGE,), (base,)),
            render=Stage(
                "render",
                self.renderer(norm, dtype),
                (base, *GRID_PORTS[: 5 if self.scaled else 4]),
                (UPSCALED,),
                "neighbour indices, relative coordinates, their tables, ensemble weights",
            ),
        )


class HoistedLayers(nn.Module):
    """The feature columns of the layers that read the input, as one convolution at LR size."""

    def __init__(self, upsampler: LocalEnsemble) -> None:
        super().__init__()
        kernel = upsampler.kernel()
        out, c, side, _ = kernel.shape
        self.conv = nn.Conv2d(c, out, side, padding=side // 2, dtype=kernel.dtype)
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.cat([layer.bias for layer, _ in upsampler.readers()]))

    def forward(self, feature: Tensor) -> Tensor:
        """Map [N, C, H, W] to channels-last [N, H, W, sum of widths], ready to be gathered."""
        out: Tensor = self.conv(feature)
        return out.permute(0, 2, 3, 1)


class EnsembleRender(nn.Module):
    """Decode output pixels from the hoisted features.

    The position enters the layers that read it linearly and each of its values depends on one axis
    only, so it becomes one table per output row and one per output column. The last layer is
    applied at every neighbour and pixels are blended: once, after a blend of the hidden values,
    would take fewer multiplications, but each pass over those values costs more than the three
    columns of the last product, above all in int8, which then stays int8 up to the pixel.
    """

    position: Tensor

    def __init__(self, upsampler: LocalEnsemble, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        *hidden, end = upsampler.linears()
        readers = upsampler.readers()
        first = upsampler.area * upsampler.in_channels
        columns = [layer.weight[:, at + first :] for layer, at in readers]
        # Transposed: one row per value of the position code.
        self.register_buffer("position", torch.cat(columns).t().contiguous())
        self.widths = [layer.out_features for layer, _ in readers]
        self.ensemble, self.scaled = upsampler.ensemble, upsampler.scaled
        later: list[nn.Module] = []
        for count, layer in enumerate(hidden[1:], start=1):
            if count < len(readers):
                # Its bias and what it reads of the input are in the base and the tables.
                at = readers[count][1]
                plain = nn.Linear(at, layer.out_features, bias=False, dtype=layer.weight.dtype)
                with torch.no_grad():
                    plain.weight.copy_(layer.weight[:, :at])
                later.append(plain.to(dtype))
            else:
                later.append(layer.to(dtype))
        self.hidden = nn.ModuleList(later)
        last = nn.Linear(end.in_features, 3, dtype=end.weight.dtype)
        with torch.no_grad():
            last.weight.copy_(end.weight * norm.std)
            mean = image_constant(norm.mean, last.weight.dtype).flatten()
            last.bias.copy_(end.bias * norm.std + mean)
        self.last = last.to(dtype)
        self.dtype = dtype

    def table(self, axis: int, offset: Tensor, distance: Tensor, scale: Tensor | None) -> Tensor:
        """What one axis adds to the layers that read the input.

        Args:
            axis: 0 for rows, 1 for columns.
            offset: float[length].
            distance: int32[length], see :class:`Neighbour`.
            scale: float[2], or None where the code does not depend on it.

        Returns:
            float[length, sum of widths], in the type of ``position``.
        """
        raise NotImplementedError

    def _decode(self, lines: Tensor, col: Tensor, table: Tensor) -> Tensor:
        """The pixels that one neighbour predicts: float[N, Ho, Wo, 3]."""
        x: Tensor | None = None
        start = 0
        for count, width in enumerate(self.widths):
            # Layer by layer, so that one map of this size lives at a time.
            part = slice(start, start + width)
            start += width
            whole = len(self.widths) == 1
            read = (lines if whole else lines[..., part]).index_select(2, col)
            read = read + (table if whole else table[:, part])[None, None, :, :]
            x = functional.relu(read if x is None else self.hidden[count - 1](x) + read)
        for layer in self.hidden[len(self.widths) - 1 :]:
            x = functional.relu(layer(x))
        out: Tensor = self.last(x)
        return out.to(border_dtype(self.dtype))

    def forward(self, base: Tensor, *grid: Tensor) -> Tensor:
        """Map float32[N, H, W, sum of widths] and the grid to float32[N, 3, Ho, Wo]."""
        at, scale = Positions(*grid[:4]), grid[4] if self.scaled else None
        h, w = base.shape[1], base.shape[2]
        base = base.to(self.dtype)
        if not self.ensemble:
            row = nearest_place(at.row_index, at.row_offset, h)
            col = nearest_place(at.col_index, at.col_offset, w)
            table_y = self.table(0, at.row_offset, at.row_index - row, scale).to(self.dtype)
            table_x = self.table(1, at.col_offset, at.col_index - col, scale).to(self.dtype)
            lines = base.index_select(1, row) + table_y[None, :, None, :]
            return self._decode(lines, col, table_x).permute(0, 3, 1, 2)
        border = border_dtype(self.dtype)
        weight_y = at.row_offset.to(border)[None, :, None, None]
        weight_x = at.col_offset.to(border)[None, None, :, None]
        cols, tables = [], []
        for step_x in (0, 1):
            cols.append(clamp_index(at.col_index + step_x, w))
            table = self.table(1, at.col_offset, at.col_index - cols[-1], scale)
            tables.append(table.to(self.dtype))
        rows_out = []
        for step_y in (0, 1):
            row = clamp_index(at.row_index + step_y, h)
            table_y = self.table(0, at.row_offset, at.row_index - row, scale).to(self.dtype)
            lines = base.index_select(1, row) + table_y[None, :, None, :]
            cols_out = []
            for step_x in (0, 1):
                x = self._decode(lines, cols[step_x], tables[step_x])
                cols_out.append(x * (weight_x if step_x else 1 - weight_x))
            rows_out.append((cols_out[0] + cols_out[1]) * (weight_y if step_y else 1 - weight_y))
        out: Tensor = rows_out[0] + rows_out[1]
        return out.permute(0, 3, 1, 2)
