"""Planes of one tile: read, encoded once, rendered in as many calls as suit the backend."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn

import numpy as np

from scaleport.bundle.manifest import Graph
from scaleport.errors import BackendError, NotFiniteError
from scaleport.grid import Axis, Grid
from scaleport.imaging.resample import support
from scaleport.imaging.source import Source
from scaleport.runtimes.arrays import HOST, Arrays, Native
from scaleport.runtimes.base import Value, Values, host
from scaleport.runtimes.fixed import FixedShape
from scaleport.runtimes.scales import frozen_scale, native_scale
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.tiling import Tile, TilePolicy, bands, render_halo_of

Size = tuple[int, int]

_MOST_OF_TILE: Final = 0.5
"""A window is worth its copy only where it is at most this part of the features."""
_WHOLE_UP_TO: Final = 1 << 30
"""Bytes of an array of pixels that is brought to a device as a whole."""


class _Check(NamedTuple):
    """Which results of the stages have to be numbers at once, and come to host memory for it."""

    features: bool
    pixels: bool


class TileRenderer:
    """Makes the planes of parts of an image's tiles.

    Args:
        stages: the model.
        source: the image.
        policy: how much is worked on at once.
    """

    def __init__(self, stages: Stages, source: Source, policy: TilePolicy) -> None:
        self._stages = stages
        self._manifest = stages.manifest
        self._policy = policy
        self._work = stages.work
        self._halo = render_halo_of(self._manifest)
        self._picture = DevicePicture(source, stages)
        size = self._manifest.fixed_size
        self._fixed = None if size is None else FixedShape(stages, size)
        # Features of some networks depend on the output size; it is None for the others.
        self._by_size = self._manifest.family == "query" and stages.has("prepare")
        self._features: OrderedDict[tuple[Tile, Size | None], Values] = OrderedDict()

    @property
    def arrays(self) -> Arrays:
        """Arithmetic where the planes are."""
        return self._stages.arrays

    @property
    def cached_bytes(self) -> int:
        """Bytes of the features that are kept."""
        return sum(v.nbytes for features in self._features.values() for v in features.values())

    def planes(self, tile: Tile, part: Grid) -> Native:
        """float32[P, 3, rows, columns] of a part of the output that a tile makes.

        Raises:
            BackendError: if the backend fails, or returns another size.
        """
        on_host = self.arrays.on_host
        try:
            made = self._made(tile, part, _Check(features=False, pixels=on_host))
        except NotFiniteError:
            # Features are looked at only now: what is wrong in them shows in the pixels.
            self._refuse_features(tile, part)
            raise
        return self._picture.settled(self._sized(made, part.shape), part)

    def explain(self, tile: Tile, part: Grid) -> NoReturn:
        """Make the planes again, stage by stage, to say which one returned no numbers.

        Raises:
            NotFiniteError: in any case.
        """
        self._features.clear()
        self._made(tile, part, _Check(features=True, pixels=True))
        raise self._stages.not_finite("render", "upscaled", {})

    def _refuse_features(self, tile: Tile, part: Grid) -> None:
        """Raise the error of features that are no numbers, if they are not."""
        for name, value in self._encoded(tile, part, False).items():
            if not HOST.finite(host(value)):
                image = self._crop(tile)
                raise self._stages.not_finite("encode", name, {"image": image})

    def _crop(self, tile: Tile) -> Value:
        row, col = tile
        return self._picture.planes(row.crop_start, col.crop_start, row.crop_stop, col.crop_stop)

    def _encoded(self, tile: Tile, part: Grid, check: bool) -> Values:
        key = (tile, part.output_size if self._by_size else None)
        if key in self._features:
            self._features.move_to_end(key)
            return self._features[key]
        # Before there are new ones, so that both do not take memory at a time.
        self._keep(self._policy.cache_bytes, 0)
        modulation = self._stages.modulation(part) if self._by_size else None
        encode = self._stages.encode if self._fixed is None else self._fixed.encode
        features = encode(self._crop(tile), modulation, check)
        self._features[key] = features
        self._keep(self._policy.cache_bytes, 1)
        return features

    def _keep(self, most: int, tiles: int) -> None:
        """Drop the features that were used least recently, beyond so many bytes and tiles."""
        kept = self.cached_bytes
        while kept > most and len(self._features) > tiles:
            _, old = self._features.popitem(last=False)
            kept -= sum(v.nbytes for v in old.values())

    def _made(self, tile: Tile, part: Grid, check: _Check) -> Native:
        features = self._encoded(tile, part, check.features)
        if self._manifest.family == "lattice":
            scale = native_scale(self._manifest, part)
            return self._lattice(features, tile, part, scale, check.pixels)
        frozen = frozen_scale(self._stages, part)
        if frozen is not None:
            return self._lattice(features, tile, part, frozen, check.pixels)
        if self._fixed is not None:
            row, col = tile
            origin = (row.crop_start, col.crop_start)
            size = (row.crop_stop - row.crop_start, col.crop_stop - col.crop_start)
            return self._fixed.render_query(features, part, origin, size, check.pixels)
        rows, cols = part.rows, part.cols
        most = max(1, self._at_once(features, tile) // (cols.stop - cols.start))
        if self._manifest.tiling == "not-allowed":
            most = rows.stop - rows.start
        pieces = []
        for y0, y1 in bands(rows.start, rows.stop, most):
            piece = part.region(y0, cols.start, y1, cols.stop)
            seen, (top, left) = self._window(features, tile, piece)
            grid = part.region(y0, cols.start, y1, cols.stop, (top, left))
            value = self._stages.render_query(seen, grid.feeds(), check.pixels)
            pieces.append(self._native(value))
        return pieces[0] if len(pieces) == 1 else self.arrays.concatenated(pieces, 2)

    def _native(self, value: Value) -> Native:
        return self.arrays.unwrap(value)

    def _at_once(self, features: Values, tile: Tile) -> int:
        """Output pixels that one call of a query decoder makes.

        Its hidden maps are about as wide as the features it reads. On a processor, maps that
        leave the cache between two layers cost more than the layers themselves.
        """
        if self._policy.render_pixels:
            return self._policy.render_pixels
        if not self._work.map_bytes:
            return 1 << 62
        row, col = tile
        lr_pixels = (row.crop_stop - row.crop_start) * (col.crop_stop - col.crop_start)
        width = sum(value.nbytes for value in features.values()) / lr_pixels
        return max(self._work.fewest_pixels, int(self._work.map_bytes / width))

    def _window(self, features: Values, tile: Tile, part: Grid) -> tuple[Values, tuple[int, int]]:
        """The features that a part of the output depends on, and the LR pixel they begin at.

        Backends read or copy all that they are fed, however little of it the part needs.
        """
        row, col = tile
        origin = (row.crop_start, col.crop_start)
        if self._manifest.tiling != "exact" or self._fixed is not None:
            return features, origin
        ys = self._reach(part.rows, row.crop_start, row.crop_stop)
        xs = self._reach(part.cols, col.crop_start, col.crop_stop)
        height, width = row.crop_stop - row.crop_start, col.crop_stop - col.crop_start
        if (ys[1] - ys[0]) * (xs[1] - xs[0]) > _MOST_OF_TILE * height * width:
            return features, origin
        if xs[1] - xs[0] > _MOST_OF_TILE * width:
            xs = (col.crop_start, col.crop_stop)  # whole rows are not copied
        spans = {
            "H": slice(ys[0] - row.crop_start, ys[1] - row.crop_start),
            "W": slice(xs[0] - col.crop_start, xs[1] - col.crop_start),
        }
        seen: Values = {}
        shapes = {declared.name: declared.shape for declared in self._declared().outputs}
        for name, value in features.items():
            shape = shapes.get(name, ())
            if not {"H", "W"} <= set(shape):
                return features, origin
            index = tuple(spans.get(str(d), slice(None)) for d in shape)
            seen[name] = self.arrays.wrap(self.arrays.crop(self._native(value), index))
        return seen, (ys[0], xs[0])

    def _declared(self) -> Graph:
        return self._stages.declared["encode"]

    def _reach(self, axis: Axis, start: int, stop: int) -> tuple[int, int]:
        """LR samples of a crop that samples of the output depend on.

        As many for every part of the same length: a backend prepares itself anew for each shape.
        """
        # The index of one sample, without those of all others: this runs for every call.
        first = ((2 * axis.start + 1) * axis.n - axis.N) // (2 * axis.N) - self._halo
        count = axis.stop - axis.start
        length = -(-count * axis.n // axis.N) + 3 + 2 * self._halo
        if length >= stop - start:
            return start, stop
        low = min(max(first, start), stop - length)
        return low, low + length

    def _lattice(self, features: Values, tile: Tile, part: Grid, scale: int, check: bool) -> Native:
        row, col = tile
        height, width = part.input_size
        seen, (first_row, first_col) = self._window(features, tile, part)
        cropped = seen is not features
        bottom = self._extent(seen, "H", first_row) if cropped else row.crop_stop
        right = self._extent(seen, "W", first_col) if cropped else col.crop_stop
        size = (bottom - first_row, right - first_col)
        if self._fixed is None:
            made = self._native(self._stages.render_lattice(seen, scale, check))
        else:
            made = self._fixed.render_lattice(seen, scale, size, check)
        lattice = self._sized(made, (size[0] * scale, size[1] * scale))
        # The lattice of this crop begins here, in pixels of the whole lattice.
        top, left = first_row * scale, first_col * scale
        whole = (height * scale, width * scale)
        rows = Axis(whole[0], part.rows.N, part.rows.start, part.rows.stop, top)
        cols = Axis(whole[1], part.cols.N, part.cols.start, part.cols.stop, left)
        every = slice(None)
        if part.output_size == whole:
            down = slice(rows.start - top, rows.stop - top)
            return lattice[every, every, down, cols.start - left : cols.stop - left]
        y0, y1 = support(replace(rows, origin=0), "replicate")
        x0, x1 = support(replace(cols, origin=0), "replicate")
        read = lattice[:, :, y0 - top : y1 - top, x0 - left : x1 - left]
        return self.arrays.reduced(read, replace(rows, origin=y0), replace(cols, origin=x0))

    def _extent(self, features: Values, axis: str, start: int) -> int:
        for declared in self._declared().outputs:
            if declared.name in features and axis in declared.shape:
                return start + int(features[declared.name].shape[declared.shape.index(axis)])
        raise BackendError("the encoder's features have no size")

    @staticmethod
    def _sized(planes: Native, size: Size) -> Native:
        """Planes of a size; a backend that returns another would shift or cut a picture."""
        if tuple(planes.shape[1:]) != (3, *size):
            raise BackendError(
                f"the backend returned {list(planes.shape)} where 3 planes of {size[0]}x{size[1]} "
                "pixels were asked for; the backend is at fault"
            )
        return planes


class DevicePicture:
    """Planes of regions of an image, for the sessions of a model.

    In host memory they are made region by region. On a device, an array of pixels goes up once, in
    its own type, and regions are cut and converted there; regions of a file go up as they are read.
    Where colour has to be filled in under transparent pixels, that is done on the host, and float
    planes go up.

    Args:
        source: the image.
        stages: the model; its first graph is loaded when the first planes are asked for.
    """

    def __init__(self, source: Source, stages: Stages) -> None:
        self._source = source
        self._stages = stages
        self._whole: Native | None = None

    def planes(self, top: int, left: int, bottom: int, right: int) -> Value:
        """float32[P, 3, rows, columns] of a region."""
        arrays, source = self._stages.arrays, self._source
        if arrays.on_host:
            return source.planes(top, left, bottom, right)
        pixels: Native
        array, batch = source.array, source.layout is None
        integers = batch and array is not None and array.dtype.kind == "u"
        if source.filled or integers:
            return arrays.wrap(arrays.upload(source.planes(top, left, bottom, right)))
        if array is not None and array.nbytes <= _WHOLE_UP_TO:
            if self._whole is None:
                self._whole = arrays.upload(np.ascontiguousarray(array))
            pixels = (
                self._whole[:, :, top:bottom, left:right]
                if batch
                else self._whole[top:bottom, left:right]
            )
        else:
            region = source.pixels(top, left, bottom, right)
            pixels = arrays.upload(np.ascontiguousarray(region))
        planes = arrays.planes(pixels, source.layout)
        return arrays.wrap(planes if source.opacity is None else planes[:1])

    def settled(self, planes: Native, part: Grid) -> Native:
        """What a network made of a part of the output, with alpha exact where it is flat."""
        known = self._source.flat_alpha(part) if len(planes) == 2 else None
        return planes if known is None else self._stages.arrays.settled(planes, *known)
