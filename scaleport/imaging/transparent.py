"""Colour under fully transparent pixels, which nobody sees until it is upscaled.

A network mixes a pixel's colour with its neighbours'. Editors leave any colour, often black, under
pixels that are fully transparent; mixed into the border of a logo it would show as a fringe.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scaleport.imaging.convert import Planes

REACH: Final = 8
"""Pixels beyond the visible ones that get a colour; a network mixes over fewer than that."""


def fill_transparent(planes: Planes) -> Planes:
    """Give pixels of alpha 0 the mean colour of their visible neighbours, up to :data:`REACH` away.

    What a pixel becomes depends on no pixel farther than that, so that tiles agree. Pixels with
    any alpha above 0 stay as they are.

    Args:
        planes: float32[2, 3, H, W], colour and alpha in [0, 1], changed in place.
    """
    colour, alpha = planes[0], planes[1, 0]
    if alpha.min() > 0 or alpha.max() <= 0:
        return planes
    weight = np.maximum(alpha, 0)
    for _ in range(REACH):
        missing = weight == 0
        total = _sum3(weight)
        found = missing & (total > 0)
        if not found.any():
            break
        for channel in colour:
            channel[found] = _sum3(channel * weight)[found] / total[found]
        # Of the next ring, all that were filled count alike.
        weight = np.where(found, np.float32(1), weight)
    return planes


def _sum3(values: Planes) -> Planes:
    """Sum over the 3x3 neighbours, nothing beyond the border."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    total: Planes = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total
