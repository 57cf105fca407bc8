"""Tiles that are not exact: neighbours overlap and fade into each other.

Where a network's pixels depend on how an image is cut (windows laid out from the corner of a
tile, averages over it), two tiles disagree a little along their border. Over ``2 * ramp`` LR pixels
around it, one is faded out linearly while the other is faded in, so that the disagreement is no
edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from scaleport.grid import Axis, Grid
from scaleport.imaging.tiles import Span
from scaleport.runtimes.base import Array

RenderTile = Callable[[tuple[Span, Span], Grid], Array]


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
    rows: Sequence[Span], cols: Sequence[Span], grid: Grid, ramp: int, render: RenderTile
) -> Iterator[Array]:
    """Planes of a region from top to bottom, float32[P, 3, rows, columns of the region].

    Args:
        rows: tiles of the vertical axis.
        cols: tiles of the horizontal axis.
        grid: the region.
        ramp: of :func:`ramp_of`.
        render: renders a part of the output from one tile.
    """
    kept: Array | None = None  # rows that the next tiles add to
    top = grid.rows.start  # row of the output that comes next
    reached = [(row, *reach(grid.rows, row, ramp)) for row in rows]
    touched = [(row, y0, y1) for row, y0, y1 in reached if y0 < y1]
    for number, (row, y0, y1) in enumerate(touched):
        band: Array | None = None
        for col in cols:
            x0, x1 = reach(grid.cols, col, ramp)
            if x0 >= x1:
                continue
            part = grid.region(y0, x0, y1, x1)
            planes = render((row, col), part)
            if band is None:
                width = grid.cols.stop - grid.cols.start
                band = np.zeros((*planes.shape[:2], y1 - y0, width), np.float32)
            fade = weights(part.rows, row, ramp)[:, None] * weights(part.cols, col, ramp)
            band[..., x0 - grid.cols.start : x1 - grid.cols.start] += planes * fade
        assert band is not None
        if kept is not None:
            band[:, :, : kept.shape[2]] += kept
        done = y1 if number + 1 == len(touched) else touched[number + 1][1]
        yield band[:, :, : done - top]
        kept, top = band[:, :, done - top :], done
