"""What query upsamplers share: a training form that is defined query by query."""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from scaleport.grid import Grid
from scaleport.models.base import Constants, Features, Upsampler
from scaleport.models.positions import GridTensors, blocks

Decode = Callable[[GridTensors], Tensor]
"""Normalised pixels float[N, Q, 3] of queries."""


def unfolded(feature: Tensor) -> Tensor:
    """The zero-padded 3x3 surroundings of every pixel, as float[N, H * W, 9 C].

    Element ``c * 9 + ky * 3 + kx``; the pixel of row ``i``, column ``j`` is row ``i * W + j``.
    """
    return functional.unfold(feature, 3, padding=1).transpose(1, 2)


class QueryUpsampler(Upsampler):
    """An upsampler whose training form computes every output pixel by itself."""

    family: ClassVar[Literal["lattice", "query"]] = "query"
    queries_per_chunk: ClassVar[int] = 65_536
    """Most queries that :meth:`render` works on at once."""

    @abc.abstractmethod
    def decoder(self, features: Features) -> Decode:
        """Run what is computed once per image, and return what then makes pixels of queries."""

    def render(self, features: Features, grid: Grid, constants: Constants) -> Tensor:
        """Training form: float[N, 3, rows, columns]."""
        del constants
        feature = features["feature"]
        n, (rows, cols) = feature.shape[0], grid.shape
        at = GridTensors.of(grid, feature.device).with_offsets(feature.dtype)
        decode = self.decoder(features)
        parts = [
            decode(at.queries(n, *block)) for block in blocks(rows, cols, self.queries_per_chunk)
        ]
        return torch.cat(parts, dim=1).transpose(1, 2).reshape(n, 3, rows, cols)


class PointUpsampler(QueryUpsampler):
    """A query upsampler that reads nothing but the encoder's features.

    It can be trained on chosen pixels of differently scaled patches in one call, see
    :class:`scaleport.models.base.TrainsOnPoints`.
    """

    @abc.abstractmethod
    def points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """Training form at queries.

        Args:
            feature: float[N, C, H, W].
            at: the queries, ``[N, Q]``.

        Returns:
            float[N, Q, 3], normalised pixels.
        """

    def train_points(self, feature: Tensor, at: GridTensors) -> Tensor:
        """The same function of the same parameters as :meth:`points`, cheaper where it can be."""
        return self.points(feature, at)

    def decoder(self, features: Features) -> Decode:
        """:meth:`points` of the encoder's features."""
        return partial(self.points, features["feature"])
