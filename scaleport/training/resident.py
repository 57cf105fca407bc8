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
from scaleport.training.data import Group, Sample, Sampler, by_side, join_groups
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
        made = [self._group(step, side, chosen) for side, chosen in by_side(samples).items()]
        return join_groups(made) if self.sampler.joins else made

    def _group(self, step: int, side: int, samples: list[Sample]) -> Group:
        recipe = self.sampler.recipe
        hr = self._oriented(self._crops(side, samples), [s.turns for s in samples])
        lr = reduce_on_device(hr, recipe.patch, recipe.degradation)
        points = torch.stack([torch.as_tensor(s.points) for s in samples])
        points = points.to(self.device, non_blocking=True)
        window: list[int] = []
        if self.sampler.supervision == "points":
            flat = hr.reshape(len(hr), -1, 3)
            target = flat.gather(1, points[..., None].expand(-1, -1, 3))
        else:
            window = self.sampler.window(step, side)
            y0, x0, y1, x1 = window
            target = hr[:, y0:y1, x0:x1].contiguous()
        return Group(lr=lr, target=target, sides=[side] * len(hr), window=window, points=points)

    def _crops(self, side: int, samples: list[Sample]) -> Tensor:
        """uint8[n, side, side, 3], not turned yet."""
        by_size: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            by_size.setdefault(sample.wanted, []).append(place)
        parts, order = [], []
        for wanted, places in by_size.items():
            crops = self._cut(wanted, [samples[place] for place in places])
            parts.append(crops if wanted == side else reduce_on_device(crops, side, "matlab"))
            order += places
        if len(parts) == 1:
            return parts[0]
        back = torch.tensor(np.argsort(order), device=self.device)
        return torch.cat(parts)[back]

    def _cut(self, size: int, samples: list[Sample]) -> Tensor:
        """Crops uint8[n, size, size, 3] out of the pictures."""
        entries = [self.cache.entries[sample.image] for sample in samples]
        corners = [
            (entry.offset // 3 + sample.y * entry.width + sample.x, entry.width)
            for entry, sample in zip(entries, samples, strict=True)
        ]
        start, width = torch.tensor(corners, device=self.device).T.reshape(2, -1, 1, 1)
        along = torch.arange(size, device=self.device)
        return self.pixels[start + along[:, None] * width + along]

    def _oriented(self, crops: Tensor, turns: list[int]) -> Tensor:
        """Turn and mirror each of uint8[n, S, S, 3], as ``rot90`` and a mirror image after it."""
        count, side = crops.shape[:2]
        turn = torch.tensor(turns, device=self.device).reshape(-1, 1, 1)
        row = torch.arange(side, device=self.device)[:, None].expand(side, side)
        col = torch.where(turn >= 4, side - 1 - row.T, row.T)
        row = row.expand_as(col)
        quarter = turn % 4
        y = torch.where(quarter % 2 == 0, row, col)
        x = torch.where(quarter % 2 == 0, col, row)
        y = torch.where((quarter == 2) | (quarter == 3), side - 1 - y, y)
        x = torch.where((quarter == 1) | (quarter == 2), side - 1 - x, x)
        # rot90 once: out[r, c] = in[c, S - 1 - r]; twice: in[S - 1 - r, S - 1 - c]; three times:
        # in[S - 1 - c, r].
        each = torch.arange(count, device=self.device).reshape(-1, 1, 1)
        return crops[each, y, x]


def reduce_on_device(hr: Tensor, side: int, method: Method) -> Tensor:
    """Reduce uint8[n, S, S, 3] to uint8[n, side, side, 3], the bits of ``reduce_patches``."""
    n, length = hr.shape[:2]
    weight = _matrix_on(length, side, method, hr.device)
    x = hr.double()
    rows_first = method == "matlab"
    for down in (rows_first, not rows_first):
        if down:
            flat = x.reshape(n, x.shape[1], -1)
            x = torch.matmul(weight, flat).reshape(n, side, x.shape[2], 3)
        else:
            x = torch.matmul(weight, x)
        x = (x + 0.5).floor_().clamp_(0, 255)
    return x.to(torch.uint8)


@functools.lru_cache(maxsize=4096)
def _matrix_on(length: int, out: int, method: Method, device: torch.device) -> Tensor:
    return torch.tensor(reduction_matrix(length, out, method), device=device)


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
