"""Batches made on the device: all pictures lie in its memory, and the processor only chooses.

A batch has the bits that :class:`scaleport.training.data.Sampler` gives for the same seed and
step, whatever the device: choices are those of :meth:`Sampler.plan`, and the reduction sums exactly
(see :mod:`scaleport.training.reduction`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scaleport.errors import UsageError
from scaleport.training.cache import ImageCache
from scaleport.training.data import Group, Sample, Sampler, by_side
from scaleport.training.devices import upload
from scaleport.training.reduction import Method, reduction_matrix

_CHUNK = 1 << 26
"""Bytes that are copied to the device at a time."""

Plan = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Fields of samples int64[n, 7], and their points int64[n, Q]; arrays, so that processes may
hand them over quickly."""


class Plans(Dataset[Plan]):
    """What a sampler chooses, as a data set of torch: item ``step`` is the plan of that step."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        """Number of steps, for torch; any other step can be drawn as well."""
        return len(self.sampler)

    def __getitem__(self, step: int) -> Plan:
        """The choices for one step.

        Raises:
            UsageError: if no image is large enough.
        """
        samples = self.sampler.plan(step)
        fields = [(s.number, s.image, s.side, s.wanted, s.y, s.x, s.turns) for s in samples]
        return np.array(fields, np.int64), np.stack([sample.points for sample in samples])


class Resident:
    """The pictures of a run on its device.

    Args:
        cache: the pictures.
        sampler: makes the choices; its recipe has no degradations, which need the processor.
        device: where the pixels go, 3 bytes each.

    Raises:
        UsageError: if the recipe degrades its samples.
    """

    def __init__(self, cache: ImageCache, sampler: Sampler, device: torch.device) -> None:
        if sampler.recipe.degradations.clean != 1:
            raise UsageError("degradations are computed by the processor: train without --resident")
        self.cache = cache
        self.sampler = sampler
        self.device = device
        self.pixels = _upload(cache, device)

    def batches(self, plans: Iterable[Any], first: int) -> Iterator[list[Group]]:
        """The batches of plans, of which the first is that of step ``first``."""
        for step, (fields, points) in enumerate(plans, first):
            table = np.asarray(fields).tolist()
            samples = [
                Sample(number, image, side, wanted, y, x, turns, chosen)
                for (number, image, side, wanted, y, x, turns), chosen in zip(
                    table, points, strict=True
                )
            ]
            yield self.batch(step, samples)

    def batch(self, step: int, samples: list[Sample]) -> list[Group]:
        """The batch of a step, given the choices for it; tensors on the device."""
        sides = by_side(samples)
        if self.sampler.joins:
            return [self._group(step, [sample for some in sides.values() for sample in some])]
        return [self._group(step, chosen) for chosen in sides.values()]

    def _group(self, step: int, samples: list[Sample]) -> Group:
        """One group of samples, whose sides may differ where they are trained on points.

        All samples go through the same operations, each in the top left corner of a square that
        holds the largest: few kernels, whatever was drawn.
        """
        recipe = self.sampler.recipe
        sides = [sample.side for sample in samples]
        width = self._widest(sides)
        facts = [(s.side, s.turns, *self._corner(s)) for s in samples]
        side, turn, start, across, wanted = upload(facts, self.device).T
        hr = self._oriented(self._crops(samples, width, start, across, wanted), side, turn)
        lr = reduce_corners(hr, [(length, recipe.patch) for length in sides], recipe.degradation)
        points = upload(np.stack([sample.points for sample in samples]), self.device)
        window: list[int] = []
        if self.sampler.supervision == "points":
            place = points // side[:, None] * width + points % side[:, None]
            target = hr.reshape(len(hr), -1, 3).gather(1, place[..., None].expand(-1, -1, 3))
        else:
            window = self.sampler.window(step, sides[0])
            y0, x0, y1, x1 = window
            target = hr[:, y0:y1, x0:x1].contiguous()
        return Group(lr=lr, target=target, sides=sides, window=window, points=points)

    def _widest(self, sides: list[int]) -> int:
        """Side of the square that samples of these sides are made in.

        That of the recipe where they differ, so that few padded matrices serve all batches.
        """
        scales = self.sampler.recipe.scales
        if scales.range is None or not self.sampler.joins:
            return max(sides)
        return max(*sides, int(self.sampler.recipe.patch * scales.range[1] + 0.5))

    def _corner(self, sample: Sample) -> tuple[int, int, int]:
        """First pixel of a crop in the memory of all, pixels per row, and side of the crop."""
        entry = self.cache.entries[sample.image]
        first = entry.offset // 3 + sample.y * entry.width + sample.x
        return first, entry.width, sample.wanted

    def _crops(
        self, samples: list[Sample], width: int, start: Tensor, across: Tensor, wanted: Tensor
    ) -> Tensor:
        """uint8[n, width, width, 3], reduced to their sides but not turned yet."""
        down = self.sampler.recipe.downscale
        sizes = [(sample.wanted, sample.side) for sample in samples]
        reduces = any(one != other for one, other in sizes)
        largest = max(one for one, _ in sizes)
        if reduces and self.sampler.joins:
            largest = max(largest, round(width / down.smallest))
        largest = max(largest, width)
        along = torch.arange(largest, device=self.device).expand(len(samples), -1)
        along = torch.minimum(along, wanted[:, None] - 1)
        rows = start[:, None] + along * across[:, None]
        crops = self.pixels[rows[:, :, None] + along[:, None, :]]
        if not reduces:
            return crops[:, :width, :width]
        return reduce_corners(crops, sizes, "matlab", width)

    def _oriented(self, crops: Tensor, side: Tensor, turn: Tensor) -> Tensor:
        """Turn and mirror the top left corners of uint8[n, S, S, 3].

        As ``rot90`` and a mirror image after it; undefined beyond the corners.
        """
        count, width = crops.shape[:2]
        turn, last = turn.reshape(-1, 1, 1), side.reshape(-1, 1, 1) - 1
        along = torch.arange(width, device=self.device)
        row = along[:, None].expand(width, width)
        col = torch.where(turn >= 4, last - row.T, row.T)
        row = row.expand_as(col)
        quarter = turn % 4
        y = torch.where(quarter % 2 == 0, row, col)
        x = torch.where(quarter % 2 == 0, col, row)
        y = torch.where((quarter == 2) | (quarter == 3), last - y, y)
        x = torch.where((quarter == 1) | (quarter == 2), last - x, x)
        # rot90 once: out[r, c] = in[c, S - 1 - r]; twice: in[S - 1 - r, S - 1 - c]; three times:
        # in[S - 1 - c, r].
        each = torch.arange(count, device=self.device).reshape(-1, 1, 1)
        return crops[each, y.clamp(0, width - 1), x.clamp(0, width - 1)]


def reduce_corners(
    hr: Tensor, sizes: list[tuple[int, int]], method: Method, width: int = 0
) -> Tensor:
    """Reduce the top left corners of uint8[n, S, S, 3], each from one side to another.

    Every corner gets the bits of :func:`scaleport.training.reduction.reduce_patches`.

    Args:
        hr: the squares, on any device.
        sizes: for each of them, the side of its corner and that of the result.
        method: how to reduce.
        width: side of all results; that of the largest if 0.

    Returns:
        uint8[n, width, width, 3]; 0 beyond each result.
    """
    width = width or max(out for _, out in sizes)
    matrices = [
        _padded_matrix(length, out, method, hr.shape[1], width, hr.device) for length, out in sizes
    ]
    return _reduced(torch.stack(matrices), hr, method)


def _reduced(weight: Tensor, hr: Tensor, method: Method) -> Tensor:
    """Reduce both axes of uint8[n, S, S, 3] by the same weights float64[n, out, S]."""
    n, side = weight.shape[:2]
    # Two products along the second axis, each of which leaves the axes exchanged.
    x = (hr if method == "matlab" else hr.transpose(1, 2)).double()
    for _ in range(2):
        x = torch.bmm(weight, x.reshape(n, x.shape[1], -1)).reshape(n, side, -1, 3)
        x = (x + 0.5).floor_().clamp_(0, 255).transpose(1, 2)
    x = x if method == "matlab" else x.transpose(1, 2)
    return x.to(torch.uint8).contiguous()


@functools.lru_cache(maxsize=1024)
def _padded_matrix(
    length: int, out: int, method: Method, columns: int, rows: int, device: torch.device
) -> Tensor:
    """float64[rows, columns]: the weights of a reduction, and zeros below and beside them."""
    weights = np.zeros((rows, columns))
    weights[:out, :length] = reduction_matrix(length, out, method)
    return torch.from_numpy(weights).to(device)


def _upload(cache: ImageCache, device: torch.device) -> Tensor:
    """All pixels as uint8[pixels, 3] on the device."""
    size = sum(entry.height * entry.width for entry in cache.entries)
    pixels = torch.empty(size, 3, dtype=torch.uint8, device=device)
    flat, data = pixels.view(-1), cache.data
    for start in range(0, 3 * size, _CHUNK):
        part = np.array(data[start : min(start + _CHUNK, 3 * size)])
        flat[start : start + len(part)] = torch.from_numpy(part).to(device)
    return pixels


def resident_bytes(cache: ImageCache) -> int:
    """What the pictures of a run take on the device."""
    return 3 * sum(entry.height * entry.width for entry in cache.entries)
