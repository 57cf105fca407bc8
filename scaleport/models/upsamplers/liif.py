"""LIIF: every output pixel decoded by an MLP from nearby features (arXiv 2012.09161)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.base import Normalisation
from scaleport.models.positions import GridTensors
from scaleport.models.registry import UPSAMPLERS
from scaleport.models.upsamplers.ensemble import EnsembleRender, LocalEnsemble, Neighbour


@UPSAMPLERS.register("liif")
class LIIF(LocalEnsemble):
    """Local implicit image function with feature unfolding, local ensemble and cell decoding.

    Each of the three can be left out, as in the paper's ablations. Input of the MLP, in order: 9 C
    unfolded features (``c * 9 + ky * 3 + kx``), rel_y, rel_x, cell_y, cell_x, where one LR pixel is
    2 units. 346 883 parameters at C = 64 with 4 hidden layers of 256.

    Args:
        in_channels: encoder width C.
        hidden: widths of the hidden layers.
        ensemble: whether the four pixels around predict and are blended; else the nearest does.
        unfold: whether a pixel's features are those of its 3x3 surroundings; else C instead of 9 C.
        cell: whether the size of an output pixel is decoded; else rel_y and rel_x alone follow.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: tuple[int, ...] | list[int] = (256, 256, 256, 256),
        ensemble: bool = True,
        unfold: bool = True,
        cell: bool = True,
    ) -> None:
        super().__init__()
        if not hidden or any(width < 1 for width in hidden):
            raise UsageError(f"liif needs at least one hidden layer, got {hidden!r}")
        self.in_channels = in_channels
        self.ensemble, self.unfold, self.scaled = ensemble, unfold, cell
        layers: list[nn.Module] = []
        width = self.area * in_channels + (4 if cell else 2)
        for out in hidden:
            layers += [nn.Linear(width, out), nn.ReLU()]
            width = out
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 3))

    def linears(self) -> list[nn.Linear]:
        """The layers of the MLP."""
        return [layer for layer in self.mlp if isinstance(layer, nn.Linear)]

    def position(self, at: GridTensors, near: Neighbour) -> Tensor:
        """Relative coordinates and cell, float[N, Q, 4], or without the cell float[N, Q, 2]."""
        rel_y = 2 * (near.row_distance.to(at.row_offset.dtype) + at.row_offset)
        rel_x = 2 * (near.col_distance.to(at.col_offset.dtype) + at.col_offset)
        rel = torch.stack([rel_y, rel_x], dim=-1)
        if not self.scaled:
            return rel
        cell = (2 / at.scale)[:, None, :].expand(-1, rel.shape[1], -1)
        return torch.cat([rel, cell.to(rel.dtype)], dim=-1)

    def renderer(self, norm: Normalisation, dtype: torch.dtype) -> EnsembleRender:
        """Render stage with relative coordinates."""
        return LIIFRender(self, norm, dtype)


class LIIFRender(EnsembleRender):
    """Rows of ``position``: rel_y, rel_x, and where the cell is decoded cell_y, cell_x."""

    def table(self, axis: int, offset: Tensor, distance: Tensor, scale: Tensor | None) -> Tensor:
        """Relative coordinates of one axis; rows also carry the cell, where it is decoded."""
        offset = offset.to(self.position.dtype)
        rel = 2 * (distance.to(offset.dtype) + offset)
        out = rel[:, None] * self.position[axis]
        if axis == 0 and scale is not None:
            out = out + ((2 / scale)[:, None] * self.position[2:4]).sum(dim=0)
        return out
