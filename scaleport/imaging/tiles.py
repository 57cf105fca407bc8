"""Cutting an image into tiles whose crops overlap by a halo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from scaleport.errors import UsageError


@dataclass(frozen=True)
class Span:
    """One tile along one axis: the input samples it owns, and the crop that it is made from."""

    start: int
    stop: int
    crop_start: int
    crop_stop: int


def cut(length: int, tile: int, halo: int, step: int = 1) -> list[Span]:
    """Cut an axis into spans of nearly equal length, at most ``tile`` samples owned by each.

    Where crops have to begin and end at whole steps, spans meet where the two crops overlap least,
    as near to equal lengths as that allows.

    Args:
        length: samples of the axis.
        tile: most samples a span may own; 0 for no cutting.
        halo: samples by which a crop reaches beyond what the span owns, up to the image border.
        step: crops begin and end at multiples of this, or at the image border.

    Raises:
        UsageError: if ``tile`` or ``halo`` is negative, or ``step`` is below 1.
    """
    if tile < 0 or halo < 0:
        raise UsageError(f"tile and halo must be at least 0, got {tile} and {halo}")
    if step < 1:
        raise UsageError(f"the step of tiles must be at least 1, got {step}")
    count = 1 if tile == 0 else -(-length // tile)
    edges = [0]
    for left in range(count - 1, 0, -1):
        equal = length * (count - left) // count
        # No span is empty or owns too much, now or among those that are left.
        low = max(edges[-1] + 1, length - tile * left)
        high = min(edges[-1] + tile, length - left)
        places = [e for e in _best_edges(equal, halo, step) if low <= e <= high]
        edges.append(places[0] if places else min(max(equal, low), high))
    edges.append(length)
    return [
        Span(
            start,
            stop,
            max(0, start - halo) // step * step,
            min(length, -(-(stop + halo) // step) * step),
        )
        for start, stop in pairwise(edges)
    ]


def _best_edges(equal: int, halo: int, step: int) -> list[int]:
    """Places next to one, the nearest first, at which crops overlap by the fewest whole steps."""
    # Crops that begin at the step before ``edge - halo`` and end at that after ``edge + halo``.
    spare = -2 * halo % step
    past = (equal - halo) % step
    if past <= spare:
        return [equal]
    return sorted((equal - (past - spare), equal + step - past), key=lambda e: abs(e - equal))


def bands(start: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """Half-open pieces of ``start:stop``, at most ``most`` (1 or more) samples each."""
    for first in range(start, stop, max(1, most)):
        yield first, min(stop, first + max(1, most))
