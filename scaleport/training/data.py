"""Random pairs of LR and HR patches, made on the fly from the image cache.

All randomness of a sample comes from ``(seed, step, number of the sample in the whole batch)``, so
a batch depends neither on what happened before it nor on how many processes share it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from scaleport.errors import UsageError
from scaleport.grid import Axis
from scaleport.imaging.resample import resize_matrix
from scaleport.training.cache import ImageCache, Pixels
from scaleport.training.degrading import degraded
from scaleport.training.recipe import Recipe

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


_Sample = tuple[int, Pixels, npt.NDArray[np.int64]]
"""Its number in the whole batch, its HR patch and the points to train on."""


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process works on: ``rank`` of ``world`` of them."""

    rank: int = 0
    world: int = 1


@functools.lru_cache(maxsize=1024)
def _matrix(length: int, out: int) -> npt.NDArray[np.float32]:
    return resize_matrix(Axis.whole(length, out)).astype(np.float32)


def degrade(hr: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float32]:
    """Reduce [..., H, W, 3] with values 0 .. 255 as MATLAB's ``imresize`` reduces 8-bit images.

    Antialiased bicubic, borders mirrored, rounded to 8 bits after each pass. As matrix products:
    faster than :func:`scaleport.imaging.imresize` for patches, and a value that lies within
    float32 precision of a half may round the other way.
    """
    rows, cols = _matrix(hr.shape[-3], height), _matrix(hr.shape[-2], width)
    *front, h, w, c = hr.shape
    x = np.asarray(hr, dtype=np.float32).reshape(*front, h, w * c)
    x = np.clip(np.floor(np.matmul(rows, x) + 0.5), 0, 255)
    x = np.matmul(cols, x.reshape(*front, height, w, c))
    result: npt.NDArray[np.float32] = np.clip(np.floor(x + 0.5), 0, 255)
    return result


def reduce_patches(hr: Pixels, side: int, method: Literal["matlab", "pil"]) -> Pixels:
    """LR uint8[n, side, side, 3] of HR patches uint8[n, S, S, 3]."""
    if method == "matlab":
        return degrade(hr, side, side).astype(np.uint8)
    size = (side, side)
    return np.stack(
        [np.asarray(Image.fromarray(patch).resize(size, Image.Resampling.BICUBIC)) for patch in hr]
    )


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
        size = self.recipe.batch // self.share.world
        first = self.share.rank * size
        groups: dict[int, list[_Sample]] = {}
        for number in range(first, first + size):
            rng = self._rng(_SAMPLE, step, number)
            side = int(self.recipe.patch * self._scale(step, rng) + 0.5)
            hr = self._crop(side, rng)
            groups.setdefault(side, []).append((number, hr, self._points(side, rng)))
        made = [self._group(step, side, samples) for side, samples in groups.items()]
        if self.supervision != "points" or not self.together or len(made) == 1:
            return made
        joined = Group(
            lr=np.concatenate([group["lr"] for group in made]),
            target=np.concatenate([group["target"] for group in made]),
            sides=[side for group in made for side in group["sides"]],
            window=[],
            points=np.concatenate([group["points"] for group in made]),
        )
        return [joined]

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

    def _group(self, step: int, side: int, samples: list[_Sample]) -> Group:
        hr = np.stack([patch for _, patch, _ in samples])
        points = np.stack([chosen for _, _, chosen in samples])
        window: list[int] = []
        if self.supervision == "points":
            flat = hr.reshape(len(hr), -1, 3)
            target = np.take_along_axis(flat, points[..., None], axis=1)
        else:
            window = self._window(step, side)
            y0, x0, y1, x1 = window
            target = np.ascontiguousarray(hr[:, y0:y1, x0:x1])
        lr = self._reduced(step, [number for number, _, _ in samples], hr)
        return Group(lr=lr, target=target, sides=[side] * len(hr), window=window, points=points)

    def _reduced(self, step: int, numbers: list[int], hr: Pixels) -> Pixels:
        recipe = self.recipe

        def reduce(patches: Pixels) -> Pixels:
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

    def _window(self, step: int, side: int) -> list[int]:
        length = min(side, math.isqrt(self.recipe.queries) or side)
        if self.supervision == "image" or length == side:
            return [0, 0, side, side]
        y, x = self._rng(_SQUARE, step, side).integers(side - length + 1, size=2).tolist()
        return [y, x, y + length, x + length]

    def _crop(self, side: int, rng: np.random.Generator) -> Pixels:
        down = self.recipe.downscale
        for _ in range(1000):
            index = self.indices[int(rng.integers(len(self.indices)))]
            image, entry = self.cache[index], self.cache.entries[index]
            wanted = side
            if (entry.lossy or not down.only_lossy) and rng.random() < down.probability:
                wanted = round(side / rng.uniform(down.smallest, down.largest))
            # An image too small for the enlarged crop may still serve without it.
            wanted = wanted if min(image.shape[:2]) >= wanted else side
            if min(image.shape[:2]) >= wanted:
                break
        else:
            raise UsageError(f"no training image found with at least {side}x{side} pixels")
        y = int(rng.integers(image.shape[0] - wanted + 1))
        x = int(rng.integers(image.shape[1] - wanted + 1))
        crop: Pixels = image[y : y + wanted, x : x + wanted]
        if wanted != side:
            crop = degrade(crop, side, side).astype(np.uint8)
        turns = int(rng.integers(8))
        crop = np.rot90(crop, turns % 4)
        return crop[:, ::-1] if turns >= 4 else crop
