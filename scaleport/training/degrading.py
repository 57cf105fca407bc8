"""Degradations of a recipe, drawn anew for every sample.

The order of the steps is random, and a picture may go through them twice: before it is reduced, as
one that was published elsewhere, and after. See :mod:`scaleport.imaging.degradation` for sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scaleport.aliases import Uint8Array
from scaleport.imaging import degradation as steps

if TYPE_CHECKING:
    from scaleport.training.recipe import Degradations

Step = Callable[[Uint8Array, "Degradations", np.random.Generator], Uint8Array]

_REDUCERS = ("area", "bilinear", "bicubic", "lanczos")


def degraded(
    hr: Uint8Array,
    side: int,
    options: Degradations,
    rng: np.random.Generator,
    reduce: Callable[[Uint8Array], Uint8Array],
) -> Uint8Array:
    """LR uint8[side, side, 3] of an HR patch uint8[S, S, 3].

    Args:
        hr: what the network shall give back.
        side: side of the result.
        options: how often and how strongly.
        rng: all randomness comes from here.
        reduce: the recipe's own reduction.
    """
    if rng.random() < options.clean:
        return reduce(hr)
    if rng.random() < options.twice:
        hr = _once(hr, options, rng)
    if rng.random() < options.other_filter:
        lr = steps.resize(hr, side, side, str(rng.choice(_REDUCERS)))
    else:
        lr = reduce(hr)
    return _once(lr, options, rng)


def _once(image: Uint8Array, options: Degradations, rng: np.random.Generator) -> Uint8Array:
    for number in rng.permutation(len(_STEPS)):
        image = _STEPS[number](image, options, rng)
    return image


def _blur(image: Uint8Array, options: Degradations, rng: np.random.Generator) -> Uint8Array:
    how = options.blur
    if rng.random() >= how.probability:
        return image
    if rng.random() < how.sinc:
        return steps.blur(
            image, steps.sinc_kernel(rng.uniform(math.pi / 2, math.pi), int(rng.integers(3, 9)))
        )
    first = second = rng.uniform(*how.sigma)
    if rng.random() < how.anisotropic:
        second = rng.uniform(*how.sigma)
    return steps.blur(image, steps.gaussian_kernel(first, second, rng.uniform(0, math.pi)))


def _resize(image: Uint8Array, options: Degradations, rng: np.random.Generator) -> Uint8Array:
    """To another size and back."""
    how = options.resize
    if rng.random() >= how.probability:
        return image
    height, width = image.shape[:2]
    low, high = how.factor
    factor = math.exp(rng.uniform(math.log(low), math.log(high)))
    there = (max(1, round(height * factor)), max(1, round(width * factor)))
    for size in (there, (height, width)):
        image = steps.resize(image, *size, str(rng.choice(_REDUCERS)))
    return image


def _noise(image: Uint8Array, options: Degradations, rng: np.random.Generator) -> Uint8Array:
    how = options.noise
    if rng.random() >= how.probability:
        return image
    kind = steps.poisson_noise if rng.random() < how.poisson else steps.gaussian_noise
    return kind(image, rng.uniform(*how.sigma), rng, rng.random() < how.gray)


def _compression(image: Uint8Array, options: Degradations, rng: np.random.Generator) -> Uint8Array:
    how = options.compression
    if rng.random() >= how.probability:
        return image
    quality = int(rng.integers(how.quality[0], how.quality[1] + 1))
    if rng.random() < how.webp:
        return steps.compress(image, "webp", quality)
    full = rng.random() < how.full_colour
    # Blocks of colours at half the resolution are 16 pixels wide.
    y, x = rng.integers(16, size=2).tolist()
    return steps.compress(image, "jpeg", quality, full, (y, x))


_STEPS: tuple[Step, ...] = (_blur, _resize, _noise, _compression)
