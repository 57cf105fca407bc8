"""An opened image: encoded once, tile by tile, rendered at any scale and region."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import numpy as np

from scaleport.errors import BackendError, OutOfMemoryError
from scaleport.grid import Axis, Grid
from scaleport.imaging.convert import Layout, from_planes
from scaleport.imaging.reading import Picture
from scaleport.imaging.resample import imresize, support
from scaleport.imaging.source import source_of
from scaleport.imaging.tiles import Span, bands, cut
from scaleport.runtimes.base import Array, Outputs
from scaleport.runtimes.blend import blended_rows, ramp_of, reach
from scaleport.runtimes.scales import checked_grid, frozen_scale, native_scale
from scaleport.runtimes.stages import Stages

Region = tuple[int, int, int, int]
Progress = Callable[[int, int], None]
Size = tuple[int, int]
Tile = tuple[Span, Span]

_SMALLEST_TILE: Final = 16
_CACHED_MAP: Final = 4 << 20
"""Bytes of a decoder's map that stays in the processor's cache from one layer to the next."""
_FEWEST_PIXELS: Final = 2048
"""Below this, what a call costs by itself would show."""


@dataclass(frozen=True)
class TilePolicy:
    """How much is worked on at once.

    Attributes:
        tile: most LR rows or columns that one tile owns; 0 never tiles.
        render_pixels: most output pixels that one call of a query decoder makes; 0 for as many
            as the processor's cache has room for from one layer to the next.
        cache_bytes: features kept for the next rendering of the same view; those of the latest
            tile are kept in any case.
    """

    tile: int = 256
    render_pixels: int = 0
    cache_bytes: int = 256 << 20


class View:
    """An opened image. Made by :meth:`scaleport.Upscaler.open`.

    Rendering a second scale or region costs only the decoder, while the features of the image's
    tiles fit the cache. (Where features depend on the output size, only a second region does.)
    """

    def __init__(self, stages: Stages, image: Array | Picture, policy: TilePolicy) -> None:
        self._stages = stages
        self._manifest = stages.bundle.manifest
        self._source = source_of(image)
        # Features of some networks depend on the output size; it is None for the others.
        self._by_size = self._manifest.family == "query" and stages.has("prepare")
        self._features: OrderedDict[tuple[Tile, Size | None], Outputs] = OrderedDict()
        self._lay_out(policy)

    def _lay_out(self, policy: TilePolicy) -> None:
        """Cut the image into tiles; features of other tiles are dropped."""
        self._policy = policy
        self._features.clear()
        halo = self.halo
        height, width = self.shape
        self._rows = self._cut(height, self._manifest.height.max, halo)
        self._cols = self._cut(width, self._manifest.width.max, halo)
        exact = self._manifest.tiling == "exact"
        radius = self._manifest.receptive_field
        self._ramp = 0 if exact else ramp_of(self._rows, self._cols, radius)

    def _cut(self, length: int, most: int, halo: int) -> list[Span]:
        """Tiles of one axis; none reaches beyond the length that graphs were built for.

        Windows of a tile lie where those of the image do, unless graphs are too short for that.
        """
        tile, step = self._policy.tile, self._manifest.tile_step
        if self._manifest.tiling == "not-allowed":
            return cut(length, 0, halo)
        if length > most:
            # A crop that begins and ends at whole steps reaches up to a step less 1 further.
            left = most - 2 * (halo + step - 1)
            if left < step:
                step, left = 1, most - 2 * halo
            tile = max(1, min(tile or most, left))
        return cut(length, tile, halo, step)

    @property
    def halo(self) -> int:
        """LR pixels that the crop of a tile reaches beyond what the tile owns."""
        radius = self._manifest.receptive_field
        if self._manifest.family == "lattice":
            # The reduction from the lattice reads a little beyond what a tile owns.
            radius += math.ceil(2 / self._manifest.scale.min) + 1
        return radius

    @property
    def shape(self) -> tuple[int, int]:
        """Size (H, W) of the opened image."""
        return self._source.shape

    def render(
        self,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | None = None,
        region: Region | None = None,
        progress: Progress | None = None,
    ) -> Array:
        """Render the image, or a region of the output.

        Args:
            scale: one number, or (scale_y, scale_x).
            size: output size (height, width), instead of a scale.
            region: (y0, x0, y1, x1) in output pixels; the whole output when left out.
            progress: called with (tiles done, tiles in all).

        Returns:
            Pixels in the layout and type of the opened image.

        Raises:
            ScaleError: if scale, size or region is out of range.
            BackendError: if the backend fails, or returns NaN.
        """
        grid = self._grid(scale, size, region)
        out: Array | None = None
        top = 0
        for band in self._bands(grid, progress):
            axis = band.ndim - 2 if self._source.layout is None else 0
            if band.shape[axis] == grid.shape[0]:
                return band
            if out is None:
                shape = list(band.shape)
                shape[axis] = grid.shape[0]
                out = np.empty(shape, band.dtype)
            rows = slice(top, top + band.shape[axis])
            top = rows.stop
            if axis:
                out[:, :, rows] = band
            else:
                out[rows] = band
        assert out is not None
        return out

    def bands(
        self,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | None = None,
        region: Region | None = None,
        progress: Progress | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> Iterator[Array]:
        """Render from top to bottom: bands of rows that together are what :meth:`render` gives.

        Where a backend runs out of memory, tiles are halved and the rendering goes on;
        :attr:`policy` tells. Arguments and errors are those of :meth:`render`.

        Args:
            scale: one number, or (scale_y, scale_x).
            size: output size (height, width), instead of a scale.
            region: (y0, x0, y1, x1) in output pixels.
            progress: called with (tiles done, tiles in all).
            dtype: uint8, uint16 or float32 of the pixels, if not that of the opened picture.
        """
        yield from self._bands(self._grid(scale, size, region), progress, dtype)

    def output_size(self, scale: float | Iterable[float]) -> tuple[int, int]:
        """Size (height, width) of the whole output at a scale: regions lie within it.

        Raises:
            ScaleError: if the scale is out of range.
        """
        return self._grid(scale, None, None).shape

    @property
    def cached_bytes(self) -> int:
        """Bytes of the features that are kept, at most :attr:`TilePolicy.cache_bytes`.

        More only where those of a single tile are.
        """
        return sum(v.nbytes for features in self._features.values() for v in features.values())

    @property
    def policy(self) -> TilePolicy:
        """How much is worked on at once, now."""
        return self._policy

    def _grid(
        self,
        scale: float | Iterable[float] | None,
        size: tuple[int, int] | None,
        region: Region | None,
    ) -> Grid:
        grid = checked_grid(self._manifest, *self.shape, scale, size)
        return grid if region is None else grid.region(*region)

    def _bands(
        self, grid: Grid, progress: Progress | None, dtype: np.dtype[Any] | None = None
    ) -> Iterator[Array]:
        layout = self._source.layout
        if layout is not None and dtype is not None:
            layout = replace(layout, dtype=np.dtype(dtype))
        if self._manifest.tiling == "not-allowed" and grid.shape != grid.output_size:
            # Pixels depend on what else the same call renders: it has to be everything.
            rows = slice(grid.rows.start, grid.rows.stop)
            cols = slice(grid.cols.start, grid.cols.stop)
            for whole in self._bands(grid.region(0, 0, *grid.output_size), progress, dtype):
                yield whole[:, :, rows, cols] if layout is None else whole[rows, cols]
            return
        todo, done = grid.rows.start, 0
        while todo < grid.rows.stop:
            left = grid.region(todo, grid.cols.start, grid.rows.stop, grid.cols.stop)
            total = done + self._tiles_of(left)
            try:
                for parts in self._tile_rows(left):
                    band: Array | None = None
                    filled = 0
                    for planes in parts:
                        if planes.size:
                            part = self._finished(planes, layout)
                            width = left.shape[1]
                            band, filled = _joined(band, part, filled, width, layout is None)
                            del part
                        del planes  # not while the next tile is rendered
                        done += 1
                        if progress is not None:
                            progress(done, total)
                    if band is not None:
                        todo += band.shape[2 if layout is None else 0]
                        yield band
            except (OutOfMemoryError, MemoryError):
                smaller = self._smaller()
                if smaller is None:
                    raise
                self._lay_out(smaller)

    def _tiles_of(self, grid: Grid) -> int:
        """How many tiles a region is made from."""
        pairs = ((grid.rows, self._rows), (grid.cols, self._cols))
        rows, cols = (
            sum(first < last for first, last in (reach(axis, span, self._ramp) for span in spans))
            for axis, spans in pairs
        )
        return rows * cols

    def _tile_rows(self, grid: Grid) -> Iterator[Iterator[Array]]:
        """Bands of a region as parts from left to right, one for each tile: their planes."""
        if self._ramp and max(len(self._rows), len(self._cols)) > 1:
            yield from blended_rows(self._rows, self._cols, grid, self._ramp, self._render_tile)
            return
        for _, row in groupby(self._pieces(grid), key=lambda piece: piece[0][0]):
            yield (self._render_tile(tile, part) for tile, part in row)

    def _finished(self, planes: Array, layout: Layout | None) -> Array:
        """Pixels of a tile in a layout, from its planes."""
        if self._source.opacity is not None:
            planes = np.concatenate([planes, np.full_like(planes, self._source.opacity)])
        return planes if layout is None else from_planes(planes, layout)

    def _smaller(self) -> TilePolicy | None:
        """A policy of half the tile, or None where nothing smaller makes sense."""
        now = max(span.stop - span.start for span in (*self._rows, *self._cols))
        if self._manifest.tiling == "not-allowed" or now <= _SMALLEST_TILE:
            return None
        given = self._policy.render_pixels
        pixels = max(1 << 12, given // 2) if given else 0
        return replace(self._policy, tile=(now + 1) // 2, render_pixels=pixels)

    def _pieces(self, grid: Grid) -> Iterator[tuple[Tile, Grid]]:
        """The tiles that a region touches, each with the part of the region that it owns."""
        for row in self._rows:
            y0, y1 = reach(grid.rows, row, 0)
            for col in self._cols:
                x0, x1 = reach(grid.cols, col, 0)
                if y0 < y1 and x0 < x1:
                    yield (row, col), grid.region(y0, x0, y1, x1)

    def _encoded(self, tile: Tile, part: Grid) -> Outputs:
        key = (tile, part.output_size if self._by_size else None)
        if key in self._features:
            self._features.move_to_end(key)
            return self._features[key]
        # Before there are new ones, so that both do not take memory at a time.
        self._keep(self._policy.cache_bytes, 0)
        row, col = tile
        crop = self._source.planes(row.crop_start, col.crop_start, row.crop_stop, col.crop_stop)
        if self._by_size:
            features = self._stages.encode(crop, self._stages.modulation(part))
        else:
            features = self._stages.encode(crop)
        self._features[key] = features
        self._keep(self._policy.cache_bytes, 1)
        return features

    def _keep(self, most: int, tiles: int) -> None:
        """Drop the features that were used least recently, beyond so many bytes and tiles."""
        kept = self.cached_bytes
        while kept > most and len(self._features) > tiles:
            _, old = self._features.popitem(last=False)
            kept -= sum(v.nbytes for v in old.values())

    def _render_tile(self, tile: Tile, part: Grid) -> Array:
        return self._source.settled(_sized(self._made(tile, part), *part.shape), part)

    def _made(self, tile: Tile, part: Grid) -> Array:
        features = self._encoded(tile, part)
        if self._manifest.family == "lattice":
            return self._render_lattice(features, tile, part, native_scale(self._manifest, part))
        frozen = frozen_scale(self._stages, part)
        if frozen is not None:
            return self._render_lattice(features, tile, part, frozen)
        origin = (tile[0].crop_start, tile[1].crop_start)
        rows, cols = part.rows, part.cols
        most = max(1, self._at_once(features, tile) // (cols.stop - cols.start))
        if self._manifest.tiling == "not-allowed":
            most = rows.stop - rows.start
        pieces = []
        for y0, y1 in bands(rows.start, rows.stop, most):
            grid = part.region(y0, cols.start, y1, cols.stop, origin)
            pieces.append(self._stages.render_query(features, grid.feeds()))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=2)

    def _at_once(self, features: Outputs, tile: Tile) -> int:
        """Output pixels that one call of a query decoder makes.

        Its hidden maps are about as wide as the features it reads. Maps that leave the cache
        between two layers cost more than the layers themselves do on some backends.
        """
        if self._policy.render_pixels:
            return self._policy.render_pixels
        row, col = tile
        lr_pixels = (row.crop_stop - row.crop_start) * (col.crop_stop - col.crop_start)
        width = sum(value.nbytes for value in features.values()) / lr_pixels
        return max(_FEWEST_PIXELS, int(_CACHED_MAP / width))

    def _render_lattice(self, features: Outputs, tile: Tile, part: Grid, scale: int) -> Array:
        height, width = part.input_size
        lattice = _sized(
            self._stages.render_lattice(features, scale),
            (tile[0].crop_stop - tile[0].crop_start) * scale,
            (tile[1].crop_stop - tile[1].crop_start) * scale,
        )
        # The lattice of this crop begins here, in pixels of the whole lattice.
        top, left = tile[0].crop_start * scale, tile[1].crop_start * scale
        whole = (height * scale, width * scale)
        rows = Axis(whole[0], part.rows.N, part.rows.start, part.rows.stop, top)
        cols = Axis(whole[1], part.cols.N, part.cols.start, part.cols.stop, left)
        if part.output_size == whole:
            return lattice[
                :, :, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
            ]
        y0, y1 = support(replace(rows, origin=0), "replicate")
        x0, x1 = support(replace(cols, origin=0), "replicate")
        read = lattice[:, :, y0 - top : y1 - top, x0 - left : x1 - left]
        planes = read.reshape(-1, y1 - y0, x1 - x0).transpose(1, 2, 0)
        small = imresize(planes, replace(rows, origin=y0), replace(cols, origin=x0), "replicate")
        batch = (*lattice.shape[:2], *part.shape)
        return np.ascontiguousarray(small.transpose(2, 0, 1)).reshape(batch)


def _sized(planes: Array, height: int, width: int) -> Array:
    """Planes of a size; a backend that returns another would shift, cut or never end a picture."""
    if planes.shape[1:] != (3, height, width):
        raise BackendError(
            f"the backend returned {list(planes.shape)} where 3 planes of {height}x{width} pixels "
            "were asked for; the backend is at fault"
        )
    return planes


def _joined(
    band: Array | None, part: Array, filled: int, width: int, batch: bool
) -> tuple[Array, int]:
    """A band with the next part in its place, and how many columns it holds now.

    The first part makes room for all: parts kept until the end would take as much again.
    """
    axis = 3 if batch else 1
    if band is None:
        if part.shape[axis] == width:
            return part, width
        band = np.empty((*part.shape[:axis], width, *part.shape[axis + 1 :]), part.dtype)
    stop = filled + part.shape[axis]
    if batch:
        band[..., filled:stop] = part
    else:
        band[:, filled:stop] = part
    return band, stop
