"""An opened image: encoded once, tile by tile, rendered at any scale and region."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import OutOfMemoryError
from scaleport.grid import Grid, whole_numbers
from scaleport.imaging.convert import Layout
from scaleport.imaging.given import ImageLike
from scaleport.imaging.source import Source, source_of
from scaleport.progress import Progress, silent
from scaleport.runtimes.arrays import Native
from scaleport.runtimes.renderer import TileRenderer
from scaleport.runtimes.scales import checked_grid
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.tiling import (
    Tile,
    TilePolicy,
    blended_rows,
    halo_of,
    lay_out,
    reach,
    smaller,
)

Region = tuple[int, int, int, int]

__all__ = ["Region", "TilePolicy", "View"]


class View:
    """An opened image. Made by :meth:`scaleport.Upscaler.open`.

    A second scale or region costs only the decoder, as long as the features of the image's tiles
    fit into the cache. (If features depend on the output size, this holds for regions only.)
    Use a view from one thread at a time; many views of one model may be used at the same time.
    """

    def __init__(self, stages: Stages, image: ImageLike, policy: TilePolicy) -> None:
        self._stages = stages
        self._manifest = stages.manifest
        self._source = source_of(image)
        self._lay_out(policy.resolved(stages.work))

    def _lay_out(self, policy: TilePolicy) -> None:
        """Cut the image into tiles; features of other tiles are dropped."""
        self._policy = policy
        self._tiles = lay_out(self._manifest, *self.shape, policy, self._stages.work)
        self._renderer = TileRenderer(self._stages, self._source, policy)

    def __repr__(self) -> str:
        height, width = self.shape
        kept = f"{self.cached_bytes >> 20} MiB of features kept"
        return f"<View of {height} x {width} pixels in {self._stages!r}, {kept}>"

    @property
    def halo(self) -> int:
        """LR pixels by which the crop of a tile extends beyond the tile."""
        return halo_of(self._manifest)

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
            progress: told of the tiles that are done, see :mod:`scaleport.progress`.

        Returns:
            Pixels in the layout and type of the opened image.

        Raises:
            ScaleError: if scale, size or region is out of range.
            BackendError: if the backend fails, or returns NaN.
        """
        grid = self._grid(scale, size, region)
        out: Array | None = None
        top = 0
        for band in self._bands(grid, progress or silent):
            axis = 2 if self._source.layout is None else 0
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
        """Render from top to bottom, in bands of rows that together equal :meth:`render`.

        If a backend runs out of memory, tiles are halved and the rendering continues;
        :attr:`policy` shows the new size. Arguments and errors are those of :meth:`render`.

        Args:
            scale: one number, or (scale_y, scale_x).
            size: output size (height, width), instead of a scale.
            region: (y0, x0, y1, x1) in output pixels.
            progress: told of the tiles that are done, see :mod:`scaleport.progress`.
            dtype: uint8, uint16 or float32 of the pixels, if not that of the opened picture.
        """
        yield from self._bands(self._grid(scale, size, region), progress or silent, dtype)

    def output_size(self, scale: float | Iterable[float]) -> tuple[int, int]:
        """Size (height, width) of the whole output at a scale. Regions must lie within it.

        Raises:
            ScaleError: if the scale is out of range.
        """
        return self._grid(scale, None, None).shape

    @property
    def source(self) -> Source:
        """The source of the pixels."""
        return self._source

    @property
    def cached_bytes(self) -> int:
        """Bytes of the features that are kept, at most :attr:`TilePolicy.cache_bytes`.

        The features of a single tile may exceed it.
        """
        return self._renderer.cached_bytes

    @property
    def policy(self) -> TilePolicy:
        """The current sizes of tiles, calls and cache."""
        return self._policy

    def _grid(
        self,
        scale: float | Iterable[float] | None,
        size: tuple[int, int] | None,
        region: Region | None,
    ) -> Grid:
        grid = checked_grid(self._manifest, *self.shape, scale, size)
        if region is None:
            return grid
        y0, x0, y1, x1 = whole_numbers(region, 4, "a region is (y0, x0, y1, x1) in output pixels")
        return grid.region(y0, x0, y1, x1)

    def _bands(
        self, grid: Grid, progress: Progress, dtype: np.dtype[Any] | None = None
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
                    band = _Band(self._renderer, self._source, layout, left.shape[1])
                    for tile, part, planes in parts:
                        band.add(tile, part, planes)
                        del planes  # not while the next tile is rendered
                        done += 1
                        progress(done, total, "")
                    pixels = band.taken()
                    del band
                    if pixels is not None:
                        todo += pixels.shape[2 if layout is None else 0]
                        yield pixels
                        del pixels
            except (OutOfMemoryError, MemoryError):
                less = smaller(self._policy, self._tiles, self._manifest)
                if less is None:
                    raise
                self._lay_out(less)

    def _tiles_of(self, grid: Grid) -> int:
        """How many tiles a region is made from."""
        tiles = self._tiles
        pairs = ((grid.rows, tiles.rows), (grid.cols, tiles.cols))
        rows, cols = (
            sum(first < last for first, last in (reach(axis, span, tiles.ramp) for span in spans))
            for axis, spans in pairs
        )
        return rows * cols

    def _tile_rows(self, grid: Grid) -> Iterator[Iterator[tuple[Tile, Grid, Native]]]:
        """Bands of a region as parts from left to right, one for each tile: their planes."""
        tiles, renderer = self._tiles, self._renderer
        if tiles.ramp and max(len(tiles.rows), len(tiles.cols)) > 1:
            yield from blended_rows(tiles.rows, tiles.cols, grid, tiles.ramp, renderer)
            return
        for _, row in groupby(self._pieces(grid), key=lambda piece: piece[0][0]):
            yield ((tile, part, renderer.planes(tile, part)) for tile, part in row)

    def _pieces(self, grid: Grid) -> Iterator[tuple[Tile, Grid]]:
        """The tiles that a region touches, each with the part of the region that it owns."""
        for row in self._tiles.rows:
            y0, y1 = reach(grid.rows, row, 0)
            for col in self._tiles.cols:
                x0, x1 = reach(grid.cols, col, 0)
                if y0 < y1 and x0 < x1:
                    yield (row, col), grid.region(y0, x0, y1, x1)


class _Band:
    """Finished pixels of a band of rows, put together where they are, and brought home once.

    The first part makes room for all: parts kept until the end would take as much again.
    """

    def __init__(
        self,
        renderer: TileRenderer,
        source: Source,
        layout: Layout | None,
        width: int,
    ) -> None:
        self._renderer = renderer
        self._arrays = renderer.arrays
        self._source = source
        self._layout = layout
        self._axis = 3 if layout is None else 1
        self._width = width
        self._pixels: Native | None = None
        self._filled = 0
        self._sound: list[tuple[Native, Tile, Grid]] = []

    def add(self, tile: Tile, part: Grid, planes: Native) -> None:
        """Finish the planes of the next tile to the right."""
        if 0 in planes.shape:
            return
        arrays = self._arrays
        if not arrays.on_host:  # there, each call is checked as it ends
            self._sound.append((arrays.finite(planes), tile, part))
        opacity = self._source.opacity
        if opacity is not None:
            planes = arrays.with_opacity(planes, float(opacity))
        pixels = arrays.pixels(planes, self._layout)
        count = int(pixels.shape[self._axis])
        if self._pixels is None:
            if count == self._width:
                self._pixels = pixels
                return
            shape = [int(length) for length in pixels.shape]
            shape[self._axis] = self._width
            dtype = np.dtype(np.float32) if self._layout is None else self._layout.dtype
            self._pixels = arrays.empty(shape, dtype)
        stop = self._filled + count
        if self._layout is None:
            self._pixels[:, :, :, self._filled : stop] = pixels
        else:
            self._pixels[:, self._filled : stop] = pixels
        self._filled = stop

    def _refuse_unsound(self) -> None:
        for sound, tile, part in self._sound:
            if not bool(sound):
                self._renderer.explain(tile, part)
        self._sound.clear()

    def taken(self) -> Array | None:
        """The band in host memory; None if it has no pixels.

        Raises:
            NotFiniteError: if the network made something else than numbers.
        """
        if self._pixels is None:
            return None
        self._refuse_unsound()
        pixels, self._pixels = self._pixels, None
        found = self._arrays.download(pixels)
        return self._source.stored(found) if self._layout is None else found
