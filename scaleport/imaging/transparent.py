"""Pictures with transparency: what a network would do to them that nobody wants.

A network mixes a pixel's colour with its neighbours'. Editors leave any colour, often black, under
pixels that are fully transparent; mixed into the border of a logo it would show as a fringe.
Where alpha is the same all around, networks return nearly that: 1 of 255 instead of nothing is a
haze that no one sees, but that programs find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scaleport.imaging.convert import Planes

REACH: Final = 8
"""Pixels beyond the visible ones that get a colour; a network mixes over fewer than that."""
FLAT: Final = 4
"""Where alpha is the same this many pixels around, its upscale is, too."""


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


def flat(alpha: Planes) -> npt.NDArray[np.bool_]:
    """Whether all of :data:`FLAT` pixels around are the same, bool[H, W] of float32[H, W]."""
    low = high = alpha
    for _ in range(FLAT):
        low, high = _over3(np.minimum, low), _over3(np.maximum, high)
    same: npt.NDArray[np.bool_] = low == high
    return same


def _over3(choose: Callable[..., Any], values: Planes) -> Planes:
    """The least or largest of 3x3 neighbours, the border repeated."""
    padded = np.pad(values, 1, "edge")
    rows = choose(choose(padded[:-2], padded[1:-1]), padded[2:])
    chosen: Planes = choose(choose(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return chosen


def _sum3(values: Planes) -> Planes:
    """Sum over the 3x3 neighbours, nothing beyond the border."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    total: Planes = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total
