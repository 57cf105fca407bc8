"""Tiles that are not exact: neighbours overlap and fade into each other.

Where a network's pixels depend on how an image is cut (windows laid out from the corner of a
tile, averages over it), two tiles disagree a little along their border. Over ``2 * ramp`` LR pixels
around it, one is faded out linearly while the other is faded in, so that the disagreement is no
edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from scaleport.aliases import Array
from scaleport.grid import Axis, Grid
from scaleport.imaging.tiles import Span
from scaleport.runtimes.arrays import Arrays, Native

Part = tuple[tuple[Span, Span], Grid, Native]


class Renderer(Protocol):
    """What makes the planes of a part of the output from one tile."""

    @property
    def arrays(self) -> Arrays:
        """Arithmetic where the planes are."""
        ...

    def planes(self, tile: tuple[Span, Span], part: Grid) -> Native:
        """float32[P, 3, rows, columns]."""
        ...


def ramp_of(rows: Sequence[Span], cols: Sequence[Span], radius: int) -> int:
    """LR pixels on each side of a border over which tiles fade: half the receptive field.

    Less where tiles are short. The other half is context for what is faded in.
    """
    shortest = min(span.stop - span.start for span in (*rows, *cols))
    return max(0, min(radius // 2, shortest // 2))


def reach(axis: Axis, span: Span, ramp: int) -> tuple[int, int]:
    """Output samples of an axis that a tile takes part in."""
    before = ramp if span.start > 0 else 0
    after = ramp if span.stop < axis.n else 0
    first, last = axis.owned(span.start - before, span.stop + after)
    return max(axis.start, first), min(axis.stop, last)


def weights(axis: Axis, span: Span, ramp: int) -> Array:
    """float32 in [0, 1] per output sample of an axis; over all tiles they add up to 1."""
    # Positions in LR samples; the border between samples i - 1 and i lies at i.
    centre = (2 * np.arange(axis.start, axis.stop, dtype=np.float64) + 1) * axis.n / (2 * axis.N)
    value = np.ones_like(centre)
    if ramp and span.start > 0:
        value = np.minimum(value, (centre - (span.start - ramp)) / (2 * ramp))
    if ramp and span.stop < axis.n:
        value = np.minimum(value, ((span.stop + ramp) - centre) / (2 * ramp))
    faded: Array = np.clip(value, 0, 1).astype(np.float32)
    return faded


def blended_rows(
    rows: Sequence[Span], cols: Sequence[Span], grid: Grid, ramp: int, renderer: Renderer
) -> Iterator[Iterator[Part]]:
    """Bands of a region from top to bottom, each as parts from left to right, one for each tile.

    What a later tile adds to is all that is kept: a part's last columns, and a band's last rows.

    Args:
        rows: tiles of the vertical axis.
        cols: tiles of the horizontal axis.
        grid: the region.
        ramp: of :func:`ramp_of`.
        renderer: makes the planes of a part of the output from one tile.

    Yields:
        Iterators of tiles, parts of the output that they reach, and what is complete of them,
        float32[P, 3, rows of the band, columns]. Each has to be used up before the next is asked
        for. Where a region begins between two tiles, a band without rows
        and parts without columns are among them.
    """
    across = _steps(grid.cols, cols, ramp)
    above: list[Native | None] = [None] * len(across)
    arrays = renderer.arrays

    def parts(row: Span, y0: int, y1: int, y_done: int) -> Iterator[Part]:
        left: Native | None = None
        for number, (col, x0, x1, x_done) in enumerate(across):
            part = grid.region(y0, x0, y1, x1)
            planes = arrays.weighted(
                renderer.planes((row, col), part),
                weights(part.rows, row, ramp),
                weights(part.cols, col, ramp),
            )
            if left is not None:
                planes[..., : left.shape[3]] += left
            # Copies, because views would keep all of the part.
            left = arrays.copied(planes[..., x_done - x0 :])
            planes = planes[..., : x_done - x0]
            over = above[number]
            if over is not None:
                planes[:, :, : over.shape[2]] += over
            above[number] = arrays.copied(planes[:, :, y_done - y0 :])
            planes = planes[:, :, : y_done - y0]
            yield (row, col), part, planes
            del planes, over  # not while the next tile is rendered

    for step in _steps(grid.rows, rows, ramp):
        yield parts(*step)


def _steps(axis: Axis, spans: Sequence[Span], ramp: int) -> list[tuple[Span, int, int, int]]:
    """Tiles that take part, where each begins and ends, and what is complete after it."""
    reached = [(span, *reach(axis, span, ramp)) for span in spans]
    touched = [found for found in reached if found[1] < found[2]]
    # Complete is what the next tile does not reach: ramps are too short for the one after it.
    complete = [*(first for _, first, _ in touched[1:]), axis.stop]
    return [(*found, done) for found, done in zip(touched, complete, strict=True)]
