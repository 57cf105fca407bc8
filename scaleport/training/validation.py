"""Scores on the way: luma PSNR of the images kept out of training."""

from __future__ import annotations

import numpy as np
import torch

from scaleport.aliases import Uint8Array
from scaleport.grid import Grid
from scaleport.models import Network
from scaleport.training.cache import ImageCache
from scaleport.training.degrading import degraded
from scaleport.training.objective import unit_pixels
from scaleport.training.recipe import Recipe
from scaleport.training.reduction import reduce_patches
from scaleport.validation.metrics import psnr_y


def validation_scales(recipe: Recipe) -> tuple[int, ...]:
    """The integer scales that a run is scored at."""
    if recipe.validation.scales:
        return recipe.validation.scales
    if recipe.scales.range is None:
        return recipe.scales.set
    low, high = recipe.scales.range
    return tuple(s for s in (2, 3, 4) if low <= s <= high) or (max(1, round(high)),)


def held_out_pairs(
    cache: ImageCache, indices: list[int], recipe: Recipe
) -> list[tuple[int, Uint8Array, Uint8Array]]:
    """Scale, LR and HR of every central crop that is scored.

    LR is degraded as often and as strongly as in training, the same in every run of a recipe.
    """

    def reduce(hr: Uint8Array) -> Uint8Array:
        lr: Uint8Array = reduce_patches(hr[None], side // scale, recipe.degradation)[0]
        return lr

    pairs = []
    for index in indices:
        image = cache[index]
        for scale in validation_scales(recipe):
            side = min(recipe.validation.crop, *image.shape[:2]) // scale * scale
            y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            hr = image[y : y + side, x : x + side]
            rng = np.random.default_rng([recipe.seed, index, scale])
            lr = degraded(hr, side // scale, recipe.degradations, rng, reduce)
            pairs.append((scale, lr, hr))
    return pairs


@torch.no_grad()
def held_out_psnr(network: Network, cache: ImageCache, indices: list[int], recipe: Recipe) -> float:
    """Mean luma PSNR in dB over held-out images and scales; the network is left in eval mode."""
    network.eval()
    device = network.mean.device
    values = []
    for scale, lr, hr in held_out_pairs(cache, indices, recipe):
        grid = Grid.from_size(*lr.shape[:2], *hr.shape[:2])
        image = unit_pixels(torch.from_numpy(lr)[None].to(device))
        out = network(image, grid)[0].permute(1, 2, 0).cpu().numpy()
        values.append(psnr_y(out * 255, hr, scale))
    return float(np.mean(values))
