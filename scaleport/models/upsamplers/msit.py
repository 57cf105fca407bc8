"""MSIT: multi-scale implicit transformer (arXiv 2403.06536).

Where the paper is silent this follows the authors' code. A query half way between two pixels
takes the later one as its centre; there the published float coordinates decide by rounding noise.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models.base import (
    DeployForm,
    Features,
    Normalisation,
    Tiling,
)
from scaleport.models.positions import GridTensors, clamp_index
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.upsamplers.msit_parts import (
    MultiScaleOperator,
    PositionBias,
    QueryFeatures,
    convolution,
)
from scaleport.models.upsamplers.query import Decode, QueryUpsampler


def centre(index: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest pixel int32 of each position, and the distance to it, in [-0.5, 0.5)."""
    later = offset >= 0.5
    return index + later.to(index.dtype), offset - later.to(offset.dtype)


def picked(image: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Gather float[N, C, H, W] at int[N, ...] rows and columns: float[N, ..., C]."""
    n, c, _, w = image.shape
    flat = image.flatten(2).transpose(1, 2)
    place = (row.long() * w + col.long()).reshape(n, -1, 1).expand(-1, -1, c)
    return flat.gather(1, place).reshape(*row.shape, c)


@UPSAMPLERS.register("msit")
class MSIT(QueryUpsampler):
    """A multi-scale operator at LR size, then attention of every query to its surroundings.

    6 903 563 parameters at 64 channels with plain convolutions. With ``rim`` 4 826 891 are
    trained and 2 936 832 frozen. Both published counts are 2305 higher: they include the mask of
    the shifts and a number that is never used.

    Args:
        in_channels: encoder width C.
        width: width of everything.
        heads: heads of the attention.
        radius: a query attends to the (2 radius + 1)^2 pixels around its nearest one.
        branches: convolutions of the multi-scale operator, with kernels 3, 5, 7, ...
        query_branches: the same of the map of queries and keys.
        hidden: widths of the hidden layers of the decoder.
        frequencies: frequencies of the position code.
        rim: whether convolutions refine frozen kernels (the second stage of training), instead of
            being plain (the first). A network of the second stage takes over the first one's
            weights by name, ``load_state_dict(state, strict=False)``.
    """

    queries_per_chunk: ClassVar[int] = 2048  # each reads (2 radius + 1)^2 keys and values
    reads_skip: ClassVar[bool] = True
    binds_scales: ClassVar[bool] = True
    tiling = Tiling("approximate", "FEM wraps around the border of its input")
    rewrites: tuple[str, ...] = (
        "kernels merged, BatchNorm folded",
        "attention's products at LR size",
        "position bias as tables per axis",
        "decoder's first layer at LR size per integer scale",
    )

    def __init__(
        self,
        in_channels: int,
        width: int = 256,
        heads: int = 8,
        radius: int = 3,
        branches: int = 16,
        query_branches: int = 4,
        hidden: tuple[int, ...] | list[int] = (256, 256, 256, 256),
        frequencies: int = 16,
        rim: bool = False,
    ) -> None:
        super().__init__()
        if min(width, heads, branches, query_branches, frequencies) < 1 or radius < 1:
            raise UsageError("msit needs all its sizes to be at least 1")
        if width % heads or width % branches or width % query_branches:
            raise UsageError(f"msit needs a width that heads and branches divide, got {width}")
        if not hidden or any(size < 1 for size in hidden):
            raise UsageError(f"msit needs at least one hidden layer, got {hidden!r}")
        self.width, self.heads, self.radius = width, heads, radius
        self.expand = nn.Conv2d(in_channels, width, 1)
        self.operator = MultiScaleOperator(width, branches, rim)
        self.query = QueryFeatures(width, query_branches, rim)
        self.value = convolution(width, width, 3, rim)
        self.position = PositionBias(frequencies, heads, radius)
        layers: list[nn.Module] = []
        size = (2 * radius + 1) ** 2 * width + 2
        for out in hidden:
            layers += [nn.Linear(size, out), nn.GELU()]
            size = out
        self.mlp = nn.Sequential(*layers, nn.Linear(size, 3))

    def maps(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, and values: float[N, width, H, W] each."""
        shared = self.operator(self.expand(feature))
        return self.query(shared), self.value(shared)

    def _heads(self, x: Tensor) -> Tensor:
        """Split the last dimension into heads."""
        return x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)

    def attended(self, maps: tuple[Tensor, Tensor], skip: Tensor, at: GridTensors) -> Tensor:
        """Training form at queries.

        Args:
            maps: result of :meth:`maps`.
            skip: float[N, 3, H, W], the normalised image.
            at: the queries, ``[N, Q]``.

        Returns:
            float[N, Q, 3], normalised pixels.
        """
        r, dtype = self.radius, maps[0].dtype
        n, count = at.row_index.shape
        shared, value = (functional.pad(m, (r, r, r, r)) for m in maps)
        row, down = centre(at.row_index, at.row_offset)
        col, across = centre(at.col_index, at.col_offset)
        steps = torch.arange(2 * r + 1, device=row.device)
        rows = (row[..., None] + steps)[..., None].expand(-1, -1, -1, 2 * r + 1).flatten(2)
        cols = (col[..., None] + steps)[:, :, None].expand(-1, -1, 2 * r + 1, -1).flatten(2)
        keys = self._heads(picked(shared, rows, cols))
        values = self._heads(picked(value, rows, cols))
        query = torch.zeros_like(keys[:, :, 0]).flatten(2)
        low = torch.zeros((n, count, 3), dtype=dtype, device=skip.device)
        height, width = skip.shape[2:]
        for step_y in (0, 1):
            for step_x in (0, 1):
                weight_y = at.row_offset if step_y else 1 - at.row_offset
                weight_x = at.col_offset if step_x else 1 - at.col_offset
                weight = (weight_y * weight_x)[..., None]
                y, x = at.row_index + step_y, at.col_index + step_x
                query = query + picked(shared, y + r, x + r) * weight
                low = low + picked(skip, clamp_index(y, height), clamp_index(x, width)) * weight
        query = self._heads(query)[:, :, None]
        logits = (query * keys).sum(dim=-1) / keys.shape[-1] ** 0.5
        logits = logits + self.position(down, across)
        weights = torch.softmax(logits, dim=2)
        attended = (values * weights[..., None]).flatten(2)
        cell = (2 / at.scale).to(dtype)[:, None, :].expand(-1, count, -1)
        out: Tensor = self.mlp(torch.cat([attended, cell], dim=-1))
        return out + low

    def decoder(self, features: Features) -> Decode:
        """Queries, keys and values of an image, and what makes pixels of them."""
        return partial(self.attended, self.maps(features["feature"]), features["skip"])

    def deploy(self, encoder: nn.Module, norm: Normalisation, dtype: torch.dtype) -> DeployForm:
        """Deploy form: kernels merged, logits interpolated from products made at LR size.

        An integer scale can be bound: the decoder's first layer then runs at LR size too.
        """
        from scaleport.models.upsamplers import msit_bound, msit_deploy

        return DeployForm(
            encode=msit_deploy.encode_stage(self, encoder, norm, dtype),
            render=msit_deploy.render_stage(self, norm, dtype),
            bind=partial(msit_bound.bound_stage, self, norm, dtype),
        )
