"""Random pairs of LR and HR patches, made on the fly from the image cache.

All randomness of a sample comes from ``(seed, step, number of the sample in the whole batch)``, so
a batch depends neither on what happened before it nor on how many processes share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scaleport.aliases import Uint8Array
from scaleport.errors import UsageError
from scaleport.models.positions import GridTensors
from scaleport.training.cache import ImageCache
from scaleport.training.degrading import degraded
from scaleport.training.recipe import Recipe
from scaleport.training.reduction import reduce_patches

Supervision = Literal["image", "points", "square"]
"""What a patch is trained on: all its pixels, random ones, or a random square of them."""

# Independent streams of random numbers.
_STEP, _SAMPLE, _RANK, _SQUARE, _DEGRADATION = range(5)


class Group(TypedDict):
    """Samples that one call of the network renders.

    Everything is an integer, so that no conversion of mixed precision touches it.
    """

    lr: Any
    """uint8[n, p, p, 3]."""
    target: Any
    """uint8[n, h, w, 3], the pixels of ``window``; or uint8[n, Q, 3], those of ``points``."""
    sides: list[int]
    """Side of the whole HR patch of every sample; all the same without ``points``."""
    window: list[int]
    """y0, x0, y1, x1 within the HR patch; empty with ``points``."""
    points: Any
    """int64[n, Q], row * side + column in the HR patch; empty with ``window``."""


class LocatedGroup(Group, total=False):
    """A group whose points, if it has any, have their grid.

    Made by :func:`scaleport.training.objective.located`.
    """

    at: GridTensors
    """Where the points lie, as queries ``[n, Q]``."""


def tensors_of(group: LocatedGroup) -> list[Tensor]:
    """All that a step reads of a group, in a fixed order."""
    return [group["lr"], group["target"], *(() if group["window"] else group["at"])]


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process works on: ``rank`` of ``world`` of them."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Sample:
    """Everything random about one sample but its degradations.

    Attributes:
        number: its number in the whole batch.
        image: index of its image in the cache.
        side: side of its HR patch.
        wanted: side of the crop, which is reduced to ``side`` if it is larger.
        y: first row of the crop.
        x: first column of the crop.
        turns: one of 8 orientations: quarter turns, and 4 more for a mirror image.
        points: int64[Q], row * side + column of the pixels to train on; empty for all.
    """

    number: int
    image: int
    side: int
    wanted: int
    y: int
    x: int
    turns: int
    points: npt.NDArray[np.int64]


class Sampler(Dataset[list[Group]]):
    """Random batches from some of the images of a cache.

    A data set of torch: item ``step`` is the batch of that step.

    Args:
        cache: the images.
        indices: those of them to use.
        recipe: sizes, scales and degradation.
        supervision: what patches are trained on.
        together: whether samples of different scales may share a group, with ``points``.
        share: the part of the batch to make.

    Raises:
        UsageError: if the batch cannot be divided among the processes.
    """

    def __init__(
        self,
        cache: ImageCache,
        indices: list[int],
        recipe: Recipe,
        supervision: Supervision = "image",
        together: bool = False,
        share: Share | None = None,
    ) -> None:
        self.cache = cache
        self.indices = indices
        self.recipe = recipe
        self.supervision = supervision
        self.together = together
        self.share = share or Share()
        if recipe.batch % self.share.world:
            raise UsageError(
                f"a batch of {recipe.batch} cannot be divided among {self.share.world} processes"
            )

    def __len__(self) -> int:
        """Number of steps, for torch; any other step can be drawn as well."""
        return self.recipe.steps

    def __getitem__(self, step: int) -> list[Group]:
        """This process's share of the batch of a step.

        Raises:
            UsageError: if no image is large enough.
        """
        groups = [
            self._group(step, side, samples) for side, samples in by_side(self.plan(step)).items()
        ]
        return join_groups(groups) if self.joins else groups

    @property
    def joins(self) -> bool:
        """Whether samples of all scales become one group."""
        return self.supervision == "points" and self.together

    def plan(self, step: int) -> list[Sample]:
        """This process's samples of a step, as choices alone.

        Raises:
            UsageError: if no image is large enough.
        """
        size = self.recipe.batch // self.share.world
        first = self.share.rank * size
        samples = []
        for number in range(first, first + size):
            rng = self._rng(_SAMPLE, step, number)
            side = int(self.recipe.patch * self._scale(step, rng) + 0.5)
            image, wanted, y, x = self._place(side, rng)
            turns = int(rng.integers(8))
            points = self._points(side, rng)
            samples.append(Sample(number, image, side, wanted, y, x, turns, points))
        return samples

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, *key])

    def _scale(self, step: int, rng: np.random.Generator) -> float:
        scales = self.recipe.scales
        if scales.per == "step":
            rng = self._rng(_STEP, step)
        elif scales.per == "rank":
            rng = self._rng(_RANK, step, self.share.rank)
        if scales.range is None:
            return float(scales.set[int(rng.integers(len(scales.set)))])
        return float(rng.uniform(*scales.range))

    def _points(self, side: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        if self.supervision != "points":
            return np.empty(0, np.int64)
        # The smallest patch bounds the number for all, so that samples of different scales stack.
        scales = self.recipe.scales
        smallest = min(scales.set) if scales.range is None else scales.range[0]
        pixels = int(self.recipe.patch * smallest + 0.5) ** 2
        return rng.choice(side**2, min(self.recipe.queries or pixels, pixels), replace=False)

    def _group(self, step: int, side: int, samples: list[Sample]) -> Group:
        hr = np.stack([self._crop(sample) for sample in samples])
        points = np.stack([sample.points for sample in samples])
        window: list[int] = []
        if self.supervision == "points":
            flat = hr.reshape(len(hr), -1, 3)
            target = np.take_along_axis(flat, points[..., None], axis=1)
        else:
            window = self.window(step, side)
            y0, x0, y1, x1 = window
            target = np.ascontiguousarray(hr[:, y0:y1, x0:x1])
        lr = self._reduced(step, [sample.number for sample in samples], hr)
        return Group(lr=lr, target=target, sides=[side] * len(hr), window=window, points=points)

    def _reduced(self, step: int, numbers: list[int], hr: Uint8Array) -> Uint8Array:
        recipe = self.recipe

        def reduce(patches: Uint8Array) -> Uint8Array:
            return reduce_patches(patches, recipe.patch, recipe.degradation)

        if recipe.degradations.clean == 1:
            return reduce(hr)
        made = []
        for number, patch in zip(numbers, hr, strict=True):
            rng = self._rng(_DEGRADATION, step, number)
            one = degraded(
                patch, recipe.patch, recipe.degradations, rng, lambda image: reduce(image[None])[0]
            )
            made.append(one)
        return np.stack(made)

    def window(self, step: int, side: int) -> list[int]:
        """y0, x0, y1, x1 of what is compared of the HR patches of a step."""
        length = min(side, math.isqrt(self.recipe.queries) or side)
        if self.supervision == "image" or length == side:
            return [0, 0, side, side]
        y, x = self._rng(_SQUARE, step, side).integers(side - length + 1, size=2).tolist()
        return [y, x, y + length, x + length]

    def _place(self, side: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Image, side, first row and first column of a crop."""
        down = self.recipe.downscale
        for _ in range(1000):
            index = self.indices[int(rng.integers(len(self.indices)))]
            entry = self.cache.entries[index]
            wanted = side
            if (entry.lossy or not down.only_lossy) and rng.random() < down.probability:
                wanted = round(side / self._factor(rng))
            # An image too small for the enlarged crop may still serve without it.
            smaller = min(entry.height, entry.width)
            wanted = wanted if smaller >= wanted else side
            if smaller >= wanted:
                break
        else:
            raise UsageError(f"no training image found with at least {side}x{side} pixels")
        y = int(rng.integers(entry.height - wanted + 1))
        x = int(rng.integers(entry.width - wanted + 1))
        return index, wanted, y, x

    def _factor(self, rng: np.random.Generator) -> float:
        down = self.recipe.downscale
        if not down.levels:
            return float(rng.uniform(down.smallest, down.largest))
        step = int(rng.integers(down.levels)) / max(1, down.levels - 1)
        return down.smallest + step * (down.largest - down.smallest)

    def _crop(self, sample: Sample) -> Uint8Array:
        wanted, y, x = sample.wanted, sample.y, sample.x
        crop: Uint8Array = self.cache[sample.image][y : y + wanted, x : x + wanted]
        if wanted != sample.side:
            crop = reduce_patches(crop[None], sample.side, "matlab")[0]
        crop = np.rot90(crop, sample.turns % 4)
        return crop[:, ::-1] if sample.turns >= 4 else crop


def by_side(samples: list[Sample]) -> dict[int, list[Sample]]:
    """Samples of the same size, in the order in which the sizes come first."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.side, []).append(sample)
    return groups


def join_groups(groups: list[Group]) -> list[Group]:
    """One group of samples of all scales, of groups with points."""
    if len(groups) == 1:
        return groups
    return [
        Group(
            lr=_concatenated([group["lr"] for group in groups]),
            target=_concatenated([group["target"] for group in groups]),
            sides=[side for group in groups for side in group["sides"]],
            window=[],
            points=_concatenated([group["points"] for group in groups]),
        )
    ]


def _concatenated(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(parts)
