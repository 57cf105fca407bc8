"""Tiles: how much of a picture is worked on at once, and how tiles become one picture again.

An image is cut into tiles whose crops overlap by a halo, so that a tile equals that part of the
whole. Where a network's pixels depend on how an image is cut (windows laid out from the corner of a
tile, averages over it), two tiles disagree a little along their border. Over ``2 * ramp`` LR pixels
around it, one is faded out linearly while the other is faded in, so that the disagreement is no
edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import Manifest
from scaleport.errors import UsageError
from scaleport.grid import Axis, Grid
from scaleport.runtimes.arrays import Arrays, Native
from scaleport.runtimes.base import Work

_SMALLEST_TILE: Final = 16


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


Tile = tuple[Span, Span]


@dataclass(frozen=True)
class TilePolicy:
    """Sizes of tiles, of decoder calls and of the cache.

    Attributes:
        tile: largest number of LR rows or columns in a tile; 0 never tiles, None lets the backend
            choose.
        render_pixels: largest number of output pixels in one call of a query decoder; 0 lets the
            backend choose.
        cache_bytes: limit of the features that are kept for the next rendering of the same view;
            those of the latest tile are always kept.

    Raises:
        UsageError: if a limit is not a whole number of at least 0.
    """

    tile: int | None = None
    render_pixels: int = 0
    cache_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        """Check the limits."""
        for name, value in (
            ("tile", self.tile or 0),
            ("render_pixels", self.render_pixels),
            ("cache_bytes", self.cache_bytes),
        ):
            if not isinstance(value, int) or value < 0:
                raise UsageError(f"{name} is a whole number of at least 0, not {value!r}")

    def resolved(self, work: Work) -> TilePolicy:
        """The policy with a tile that a backend prefers, where none was chosen."""
        return self if self.tile is not None else replace(self, tile=work.tile)


@dataclass(frozen=True)
class Layout:
    """The tiles of an image.

    Attributes:
        rows: spans of the vertical axis.
        cols: spans of the horizontal axis.
        ramp: LR pixels over which neighbours fade into each other; 0 where tiles are exact.
    """

    rows: Sequence[Span]
    cols: Sequence[Span]
    ramp: int

    @property
    def largest(self) -> int:
        """Most LR rows or columns that a tile owns."""
        return max(span.stop - span.start for span in (*self.rows, *self.cols))


def halo_of(manifest: Manifest) -> int:
    """LR pixels that the crop of a tile reaches beyond what the tile owns."""
    return halo_for(manifest.receptive_field, manifest.family == "lattice", manifest.scale.min)


def halo_for(receptive_field: int, lattice: bool, least: float) -> int:
    """The same of a network that has no manifest yet; ``least`` is its smallest scale."""
    return receptive_field + (_reduction(least) if lattice else 0)


def render_halo_of(manifest: Manifest) -> int:
    """LR pixels around a part of the output beyond which it depends on no features."""
    radius = manifest.render_radius
    if radius is None:
        return halo_of(manifest)
    return halo_for(radius, manifest.family == "lattice", manifest.scale.min)


def _reduction(least: float) -> int:
    # The reduction from the lattice reads a little beyond what a tile owns.
    return math.ceil(2 / least) + 1


def lay_out(manifest: Manifest, height: int, width: int, policy: TilePolicy, work: Work) -> Layout:
    """Cut an image of a size into tiles; none reaches beyond what graphs were built for.

    Windows of a tile lie where those of the image do, unless graphs are too short for that.
    """
    halo = halo_of(manifest)
    tile = policy.resolved(work).tile or 0
    fixed = manifest.fixed_size

    def spans(length: int, most: int) -> list[Span]:
        side, step = tile, manifest.tile_step
        if manifest.tiling == "not-allowed":
            return cut(length, 0, halo)
        if length > most:
            # A crop that begins and ends at whole steps reaches up to a step less 1 further.
            left = most - 2 * (halo + step - 1)
            if left < step:
                step, left = 1, most - 2 * halo
            side = max(1, min(side or most, left))
        elif fixed is not None:
            side = 0  # one call takes it, however small its tiles should be
        found = cut(length, side, halo, step)
        if fixed is not None:
            return _filled(found, length, most, manifest.tile_step)
        # Where windows lie at whole steps, a crop that is moved would have others.
        equal = work.equal_tiles and manifest.tiling == "exact" and manifest.tile_step == 1
        return _equal(found, length) if equal else found

    rows, cols = spans(height, manifest.height.max), spans(width, manifest.width.max)
    exact = manifest.tiling == "exact"
    return Layout(rows, cols, 0 if exact else ramp_of(rows, cols, manifest.receptive_field))


def _equal(spans: list[Span], length: int) -> list[Span]:
    """The same tiles with crops of equal length, which read a little more at the borders."""
    longest = max(span.crop_stop - span.crop_start for span in spans)
    return [
        replace(span, crop_start=start, crop_stop=start + longest)
        for span in spans
        for start in [min(span.crop_start, length - longest)]
    ]


def _filled(spans: list[Span], length: int, side: int, step: int) -> list[Span]:
    """The same tiles with crops as long as graphs of fixed shape take them, where the image is.

    Crops that begin at whole steps may be shorter by less than a step at the end of the image.
    """
    last = max(0, -(-(length - side) // step) * step)
    starts = [min(span.crop_start, last) for span in spans]
    return [
        replace(span, crop_start=start, crop_stop=min(length, start + side))
        for span, start in zip(spans, starts, strict=True)
    ]


def smaller(policy: TilePolicy, layout: Layout, manifest: Manifest) -> TilePolicy | None:
    """A policy of half the tile, or None where nothing smaller makes sense."""
    if manifest.tiling == "not-allowed" or layout.largest <= _SMALLEST_TILE:
        return None
    if manifest.fixed_size is not None:
        return None
    given = policy.render_pixels
    pixels = max(1 << 12, given // 2) if given else 0
    return replace(policy, tile=(layout.largest + 1) // 2, render_pixels=pixels)


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
