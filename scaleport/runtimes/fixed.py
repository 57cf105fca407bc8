"""Graphs of fixed shape, fed with crops and blocks of any size: filled up, run, and cut."""

from __future__ import annotations

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import SMALL, fixed_output
from scaleport.errors import UsageError
from scaleport.grid import Grid, in_longer
from scaleport.runtimes.arrays import Native
from scaleport.runtimes.base import Feeds, Value, Values, host
from scaleport.runtimes.stages import Stages, names
from scaleport.runtimes.tiling import bands

Size = tuple[int, int]


class FixedShape:
    """What a model of fixed shape needs around every call.

    Args:
        stages: the model.
        size: height and width of the only image that its graphs take.
    """

    def __init__(self, stages: Stages, size: Size) -> None:
        self._stages = stages
        self._size = size
        render = stages.declared.get("render")
        self._block = None if render is None else fixed_output(render)
        self._whole_only = stages.manifest.tiling == "not-allowed"

    def encode(self, crop: Value, modulation: Feeds | None, check: bool) -> Values:
        """Features of a crop float32[N, 3, h, w] of at most the fixed size, in the corner.

        Raises:
            UsageError: if the crop is smaller, and the model takes whole images only.
            BackendError: as of :meth:`Stages.encode`.
        """
        size = (int(crop.shape[2]), int(crop.shape[3]))
        if size == self._size:
            return self._stages.encode(crop, modulation, check)
        if self._whole_only:
            height, width = self._size
            raise UsageError(
                f"this bundle takes images of {width}x{height} pixels only, because its network "
                f"cannot be cut into tiles; got {size[1]}x{size[0]}. Export it without --static"
            )
        arrays = self._stages.arrays
        missing = [most - length for most, length in zip(self._size, size, strict=True)]
        filled = np.pad(host(crop), [(0, 0), (0, 0), *((0, n) for n in missing)], "reflect")
        image = arrays.wrap(arrays.upload(np.ascontiguousarray(filled)))
        stage = f"encode{SMALL}"
        if not self._stages.has(stage):
            return self._stages.encode(image, modulation, check)
        feeds = {"image": image, **self._places(size)}
        if check:
            return {**self._stages.run(stage, feeds)}
        return self._stages.call(stage, feeds, names(self._stages.declared[stage].outputs))

    def render_lattice(self, features: Values, scale: int, size: Size, check: bool) -> Native:
        """Pixels float32[N, 3, s * h, s * w] of the crop that the features are of."""
        stage = f"render_x{scale}"
        feeds: dict[str, Value] = {**features}
        if size != self._size and self._stages.has(f"{stage}{SMALL}"):
            stage, feeds = f"{stage}{SMALL}", {**feeds, **self._places(size)}
        if check:
            value: Value = self._stages.run(stage, feeds)["upscaled"]
        else:
            value = self._stages.call(stage, feeds, ("upscaled",))["upscaled"]
        pixels = self._stages.arrays.unwrap(value)
        return pixels[:, :, : size[0] * scale, : size[1] * scale]

    def render_query(
        self, features: Values, part: Grid, origin: Size, size: Size, check: bool
    ) -> Native:
        """Pixels float32[N, 3, rows, columns] of a grid, block by block.

        Args:
            features: those of a crop.
            part: what to render of the output.
            origin: LR pixel that the crop begins with.
            size: of the crop.
            check: whether pixels must be numbers.

        Raises:
            UsageError: if there are several blocks, and the model renders whole images only.
        """
        arrays = self._stages.arrays
        most = self._block or part.shape
        if self._whole_only and part.shape != most:
            raise UsageError(
                f"this bundle renders {most[1]}x{most[0]} pixels only, because its network renders "
                "an image in one call; export it without --static"
            )
        lines = []
        for y0, y1 in bands(part.rows.start, part.rows.stop, most[0]):
            line = []
            for x0, x1 in bands(part.cols.start, part.cols.stop, most[1]):
                feeds = self._block_feeds(part.region(y0, x0, y1, x1, origin), size, most)
                pixels = arrays.unwrap(self._stages.render_query(features, feeds, check))
                line.append(pixels[:, :, : y1 - y0, : x1 - x0])
            lines.append(line[0] if len(line) == 1 else arrays.concatenated(line, 3))
        return lines[0] if len(lines) == 1 else arrays.concatenated(lines, 2)

    def _places(self, size: Size) -> dict[str, Array]:
        """The row and column of the crop that each row and column of a graph's tensors shows."""
        rows, cols = (
            np.minimum(np.arange(most, dtype=np.int32), np.int32(length - 1))
            for most, length in zip(self._size, size, strict=True)
        )
        return {"rows": rows, "cols": cols}

    def _block_feeds(self, part: Grid, size: Size, most: Size) -> dict[str, Array]:
        """The grid of a whole block: its last row and column are repeated as often as it takes."""
        feeds: dict[str, Array] = {**part.feeds()}
        for axis, name in enumerate(("row", "col")):
            own = part.rows if name == "row" else part.cols
            index = in_longer(own.index, size[axis], self._size[axis])
            for kind, value in (("index", index), ("offset", feeds[f"{name}_offset"])):
                filled = np.pad(value, (0, most[axis] - len(value)), "edge")
                feeds[f"{name}_{kind}"] = filled
        return feeds
