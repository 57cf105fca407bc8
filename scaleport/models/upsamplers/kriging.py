"""Neural Kriging: output pixels from the nearest feature, refined by distance-aware kernels.

Source: Wang et al., "Deep Arbitrary-Scale Image Super-Resolution via Scale-Equivariance Pursuit"
(CVPR 2023), with the details of the authors' code. The encoder of the paper is ``eqsr``.

Positions come from integers: the nearest LR pixel from the index and fraction of
:mod:`scaleport.grid`, a tie going to the even one, and the distance to it from the fraction. The
published code finds both as differences of coordinates on [-1, 1], which round with the image size.
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
    Stage,
    Tiling,
    Upsampler,
    border_dtype,
    image_constant,
)
from scaleport.models.layers import ChannelNorm, widened
from scaleport.models.octaves import Octaves
from scaleport.models.positions import GridTensors, Positions, clamp_index
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.stages import EncodeStage
from scaleport.tensor import TensorSpec

_TAPS = 9


def nearest_index(index: Tensor, offset: Tensor, length: int) -> Tensor:
    """The LR pixel nearest to each output pixel of an axis, int32[K]; the even one of two."""
    odd = torch.remainder(index, torch.full_like(index, 2))
    up = (offset > 0.5).to(torch.int32)
    tie = (offset == 0.5).to(torch.int32)
    return clamp_index(index + up + tie * odd, length)


MOST_STEADY_OCTAVES = 16
"""Octaves up to which the last bit of an offset turns the highest by about 1e-3 at most."""


def distance(index: Tensor, offset: Tensor, place: Tensor) -> Tensor:
    """From LR pixels to output pixels, float32[K]; an LR pixel is 2 units."""
    return 2 * (offset + (index - place).to(torch.float32))


def neighbour_distances(index: Tensor, offset: Tensor, nearest: Tensor) -> Tensor:
    """From the LR pixel nearest to the output pixel before, at and after each, float32[3, K]."""
    count = nearest.shape[0]
    here = torch.arange(count, device=nearest.device, dtype=torch.int32)
    # Beyond the ends any finite distance will do: it weights a neighbour that is zero.
    places = [nearest.index_select(0, clamp_index(here + step, count)) for step in (-1, 0, 1)]
    return torch.stack([distance(index, offset, place) for place in places])


class Involution(nn.Module):
    """Sum over 3x3 neighbours with weights made from the map itself and a prior on distance.

    Args:
        width: channels.
        groups: channels ``g * width / groups`` and following share the weights of group ``g``.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = nn.Conv2d(width, width // 4, 3, padding=1)
        self.expand = nn.Conv2d(width // 4, _TAPS * groups, 1)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape; ``prior`` is float[9, H, W]."""
        n, c, h, w = x.shape
        kernel = self.expand(functional.relu(self.reduce(x)))
        kernel = kernel.reshape(n, self.groups, 1, _TAPS, h, w) * prior
        patches = functional.unfold(x, 3, padding=1)
        patches = patches.reshape(n, self.groups, c // self.groups, _TAPS, h, w)
        out: Tensor = (patches * kernel).sum(dim=3)
        return out.reshape(n, c, h, w)


class SlicedInvolution(nn.Module):
    """The same from nine slices of the padded map, which is never unfolded."""

    def __init__(self, source: Involution) -> None:
        super().__init__()
        self.groups = source.groups
        self.reduce = source.reduce
        old = source.expand
        self.expand = nn.Conv2d(old.in_channels, old.out_channels, 1, dtype=old.weight.dtype)
        # The weights of one tap lie together instead of those of one group.
        order = torch.arange(old.out_channels).reshape(self.groups, _TAPS).t().flatten()
        assert self.expand.bias is not None and old.bias is not None
        with torch.no_grad():
            self.expand.weight.copy_(old.weight[order])
            self.expand.bias.copy_(old.bias[order])

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape; ``prior`` is float[9, H, W]."""
        n, c, h, w = x.shape
        groups = self.groups
        kernel = self.expand(functional.relu(self.reduce(x)))
        padded = functional.pad(x, (1, 1, 1, 1))
        out: Tensor | None = None
        for tap in range(_TAPS):
            weight = kernel[:, tap * groups : (tap + 1) * groups] * prior[tap]
            top, left = divmod(tap, 3)
            moved = padded[:, :, top : top + h, left : left + w]
            moved = moved.reshape(n, groups, c // groups, h, w) * weight[:, :, None]
            out = moved if out is None else out + moved
        assert out is not None
        return out.reshape(n, c, h, w)


class KrigingBlock(nn.Module):
    """Involution and a small MLP with channel attention, each behind a norm and in a residual."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width)
        self.before = nn.Conv2d(width, width, 1)
        self.involution: nn.Module = Involution(width, groups)
        self.after = nn.Conv2d(width, width, 1)
        self.norm2 = ChannelNorm(width)
        self.fc1 = nn.Conv2d(width, 2 * width, 1)
        self.fc2 = nn.Conv2d(2 * width, width, 1)
        self.channels = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        """Map float[N, width, H, W] to the same shape; ``prior`` is float[9, H, W]."""
        x = x + self.after(self.involution(self.before(self.norm1(x)), prior))
        y = self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        mean = widened(y).mean(dim=(2, 3)).to(y.dtype)
        # There is no sigmoid: the mean of neighbouring channels is the factor itself.
        factor = self.channels(mean[:, None, :])[:, 0, :, None, None]
        out: Tensor = x + y * factor
        return out

    def freeze(self) -> None:
        """Turn into the deploy form."""
        assert isinstance(self.involution, Involution)
        self.involution = SlicedInvolution(self.involution)


@UPSAMPLERS.register("kriging")
class NeuralKriging(Upsampler):
    """Decode the nearest feature and the position in it, then two blocks on the output's grid.

    The position's code are the offsets (x, y) to the nearest LR pixel, 2 units each, followed per
    octave by their sines (x, y) and cosines (x, y). The prior of a neighbour at distance D from the
    LR pixel that is nearest to it is ``exp(-D^2 / (2 l^2))`` with one trained length l.

    With ``octaves=40`` at 180 features it has 1 212 110 parameters, with 12 octaves 28 672 fewer.
    About 1.2 M multiplications per output pixel, and activations of ``4 * width`` channels at
    output size: the costliest of the upsamplers by far.

    Args:
        in_channels: encoder width C.
        width: channels on the output's grid, a multiple of 4 and of ``groups``.
        groups: groups of channels that share the involution's weights.
        octaves: sines and cosines of the position's code; 40 as published, of which the upper ones
            are noise there.
    """

    family: ClassVar[Literal["lattice", "query"]] = "query"
    tiling = Tiling("not-allowed", "channel attention pools over the whole output")
    rewrites: tuple[str, ...] = (
        "head's features at LR size",
        "positions and distance prior as tables per axis",
        "involution by slices",
    )

    def __init__(
        self, in_channels: int, width: int = 256, groups: int = 32, octaves: int = 12
    ) -> None:
        super().__init__()
        if width < 4 or width % 4 or groups < 1 or width % groups:
            raise UsageError(
                f"kriging needs a width that is a multiple of 4 and of groups, got {width}"
            )
        self.in_channels, self.width = in_channels, width
        self.exact_offsets = octaves > MOST_STEADY_OCTAVES
        self.octaves = Octaves(octaves)
        self.head = nn.Conv2d(in_channels + 2 * self.octaves.width, width, 1)
        self.length = nn.Parameter(torch.tensor(3.0))
        self.block1 = KrigingBlock(width, groups)
        self.block2 = KrigingBlock(width, groups)
        self.last = nn.Conv2d(width, 3, 1)

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns], cut out of the whole output."""
        del constants
        if grid.rows.origin or grid.cols.origin:
            raise UsageError("kriging renders images as a whole, not tile by tile")
        feature = features["feature"]
        h, w = feature.shape[2:]
        (ho, wo), dtype = grid.output_size, feature.dtype
        whole = Grid.from_size(h, w, ho, wo)
        at = GridTensors.of(whole, feature.device)
        row = nearest_index(at.row_index, at.row_offset, h)
        col = nearest_index(at.col_index, at.col_offset, w)
        y = self.octaves(distance(at.row_index, at.row_offset, row), dtype).t()
        x = self.octaves(distance(at.col_index, at.col_offset, col), dtype).t()
        code = torch.stack([x[:, None, :].expand(-1, ho, -1), y[:, :, None].expand(-1, -1, wo)], 1)
        code = code.flatten(0, 1)[None].expand(len(feature), -1, -1, -1)
        picked = feature.index_select(2, row).index_select(3, col)
        z = functional.relu(self.head(torch.cat([picked, code], dim=1)))
        apart_y = neighbour_distances(at.row_index, at.row_offset, row).to(dtype)
        apart_x = neighbour_distances(at.col_index, at.col_offset, col).to(dtype)
        square = apart_y[:, None, :, None] ** 2 + apart_x[None, :, None, :] ** 2
        prior = torch.exp(-square / (2 * self.length**2)).flatten(0, 1)
        out = self.refined(z, prior)
        return out[:, :, grid.rows.start : grid.rows.stop, grid.cols.start : grid.cols.stop]

    def refined(self, z: Tensor, prior: Tensor) -> Tensor:
        """From the head's output float[N, width, Ho, Wo] to normalised pixels."""
        y = functional.relu(self.block1(z, prior))
        y = functional.relu(self.block2(y, prior))
        out: Tensor = self.last(functional.relu(y + z))
        return out

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: features projected at LR size, everything positional per axis."""
        base = TensorSpec("base", "float32", ("N", self.width, "H", "W"))
        lift = nn.Conv2d(self.in_channels, self.width, 1, dtype=self.head.weight.dtype)
        assert lift.bias is not None and self.head.bias is not None
        with torch.no_grad():
            lift.weight.copy_(self.head.weight[:, : self.in_channels])
            lift.bias.copy_(self.head.bias)
        return DeployForm(
            encode=Stage("encode", EncodeStage(encoder, norm, dtype, lift), (IMAGE,), (base,)),
            render=Stage(
                "render",
                KrigingRender(self, norm, dtype),
                (base, *GRID_PORTS[:4]),
                (UPSCALED,),
                "neighbour indices, offsets and their codes, distances, channel means",
            ),
        )


class KrigingRender(nn.Module):
    """Decode all output pixels at once.

    The head is linear in the position's code, and the code of an axis depends on that axis alone:
    one table per output row and one per output column. The prior is a product of the same kind.
    """

    tables: Tensor
    inverse_length: Tensor

    def __init__(self, upsampler: NeuralKriging, norm: Normalisation, dtype: torch.dtype) -> None:
        super().__init__()
        self.octaves = upsampler.octaves
        weight = upsampler.head.weight[:, upsampler.in_channels :, 0, 0]
        # Columns x, y, sin x, sin y, cos x, ...: as [2, code, width], x first.
        tables = weight.reshape(upsampler.width, -1, 2).permute(2, 1, 0)
        self.register_buffer("tables", tables.contiguous().clone())
        self.register_buffer("inverse_length", 1 / (2 * upsampler.length.detach() ** 2))
        for block in (upsampler.block1, upsampler.block2):
            block.freeze()
        self.block1: nn.Module = upsampler.block1.to(dtype)
        self.block2: nn.Module = upsampler.block2.to(dtype)
        self.last = nn.Conv2d(upsampler.width, 3, 1, dtype=weight.dtype)
        assert self.last.bias is not None and upsampler.last.bias is not None
        with torch.no_grad():
            self.last.weight.copy_(upsampler.last.weight * norm.std)
            mean = image_constant(norm.mean, weight.dtype).flatten()
            self.last.bias.copy_(upsampler.last.bias * norm.std + mean)
        self.last = self.last.to(dtype)
        self.dtype = dtype

    def _axis(
        self, index: Tensor, offset: Tensor, length: int, axis: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest LR pixels int32[K], the head's share [width, K] and the prior's [3, K]."""
        nearest = nearest_index(index, offset, length)
        code = self.octaves(distance(index, offset, nearest), self.tables.dtype)
        share = torch.matmul(code, self.tables[axis]).t().to(self.dtype)
        apart = neighbour_distances(index, offset, nearest).to(self.tables.dtype)
        return nearest, share, torch.exp(-(apart * apart) * self.inverse_length)

    def forward(self, base: Tensor, *grid: Tensor) -> Tensor:
        """Map float32[N, width, H, W] and the whole grid to float32[N, 3, Ho, Wo]."""
        at = Positions(*grid)
        row, share_y, prior_y = self._axis(at.row_index, at.row_offset, base.shape[2], 1)
        col, share_x, prior_x = self._axis(at.col_index, at.col_offset, base.shape[3], 0)
        ho, wo = at.row_index.shape[0], at.col_index.shape[0]
        z = base.to(self.dtype).index_select(2, row) + share_y[None, :, :, None]
        z = functional.relu(z.index_select(3, col) + share_x[None, :, None, :])
        prior = prior_y[:, None, :, None] * prior_x[None, :, None, :]
        prior = prior.reshape(_TAPS, ho, wo).to(self.dtype)
        y = functional.relu(self.block1(z, prior))
        y = functional.relu(self.block2(y, prior))
        out: Tensor = self.last(functional.relu(y + z))
        return out.to(border_dtype(self.dtype))
