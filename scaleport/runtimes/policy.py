"""How much of a picture is worked on at once, and the tiles that come of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from scaleport.bundle.fixed import fixed_size
from scaleport.bundle.manifest import Manifest
from scaleport.errors import UsageError
from scaleport.imaging.tiles import Span, cut
from scaleport.runtimes.base import Work
from scaleport.runtimes.blend import ramp_of

_SMALLEST_TILE: Final = 16

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
    fixed = fixed_size(manifest)

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
    if fixed_size(manifest) is not None:
        return None
    given = policy.render_pixels
    pixels = max(1 << 12, given // 2) if given else 0
    return replace(policy, tile=(layout.largest + 1) // 2, render_pixels=pixels)
