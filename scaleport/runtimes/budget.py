"""The largest tile that keeps a process within so much memory, from what small tiles take.

What a tile takes depends on the network, the backend and its precision, so it is measured: a made
up picture is upscaled at the scale in question while a thread watches the resident memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import psutil

from scaleport.errors import BackendError, OutOfMemoryError
from scaleport.grid import Grid
from scaleport.imaging.convert import Layout
from scaleport.imaging.vips import DECODED_IN_MEMORY
from scaleport.imaging.writing import WRITTEN_IN_MEMORY
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy, View

TILES: Final = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16)
"""Sizes to choose from: few, so that the same budget chooses the same tile again."""

_PROBE: Final = 128
"""Side in LR pixels of the picture that is measured; large enough for what grows with it."""
_SLACK: Final = 1.3
"""Room for what backends keep of tiles of other shapes."""
_CODECS: Final = 48 << 20
"""Bytes for what libvips works with while it decodes and encodes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """A picture to be upscaled: its grid, and the layout of its pixels."""

    grid: Grid
    layout: Layout


@dataclass(frozen=True)
class Cost:
    """Memory of a process that upscales.

    Attributes:
        loaded: bytes with the model loaded and nothing at work.
        per_pixel: bytes per LR pixel of a tile with its halo, one plane.
    """

    loaded: int
    per_pixel: float


def resident() -> int:
    """Resident memory of this process in bytes, now.

    Raises:
        BackendError: if this system does not say.
    """
    try:
        return int(psutil.Process().memory_info().rss)
    except psutil.Error as error:
        raise BackendError(
            "memory cannot be measured on this system; choose the tile with --tile"
        ) from error


def watched(call: Callable[[], T]) -> tuple[T, int]:
    """What a call returns, and the most resident memory while it ran, in bytes."""
    most, over = [resident()], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            most.append(max(most.pop(), resident()))

    thread = threading.Thread(target=watch, name="scaleport-memory", daemon=True)
    thread.start()
    try:
        result = call()
    finally:
        over.set()
        thread.join()
    return result, max(most[0], resident())


def measure(upscaler: Upscaler, scale: tuple[float, float]) -> Cost:
    """Measure what a tile takes, by upscaling a made up picture once."""
    options = replace(upscaler.policy, tile=0, cache_bytes=0)
    manifest = upscaler.manifest
    noise = np.random.default_rng(0).random((1, 3, _PROBE, _PROBE), dtype=np.float32)
    image = noise[:, :, : manifest.height.max, : manifest.width.max]
    tiny = image[:, :, : manifest.height.min + 7, : manifest.width.min + 7]
    View(upscaler.stages, tiny, options).render(scale)  # loads every graph that is used
    loaded = resident()
    _, most = watched(lambda: View(upscaler.stages, image, options).render(scale))
    pixels = image.shape[2] * image.shape[3]
    return Cost(loaded, max(1.0, (most - loaded) / pixels))


def bytes_needed(task: Task, cost: Cost, tile: int, halo: int, held: int, ramp: int) -> int:
    """Most memory that a process takes for a picture.

    Args:
        task: the picture.
        cost: of :func:`measure`.
        tile: in LR pixels; 0 for none.
        halo: LR pixels that a tile reaches beyond what it owns.
        held: pictures that are in the making at the same time, decoded or about to be encoded.
        ramp: LR pixels on each side of a border over which tiles fade into each other.
    """
    grid, layout = task.grid, task.layout
    (height, width), (rows, columns) = grid.input_size, grid.output_size
    side = tile + 2 * halo if tile else max(height, width)
    crop = min(side, height) * min(side, width)
    pixel = (layout.channels or 1) * layout.dtype.itemsize
    band_rows = min(rows, round(tile * rows / height) + 1) if tile else rows
    band = 2 * band_rows * columns * pixel
    if ramp and tile:
        # The rows that the next band adds to, and one part with its weights, all of them floats.
        fade = min(2 * ramp, tile)
        down, across = (tile + fade) * rows / height, (tile + fade) * columns / width
        kept = fade * rows / height * columns
        band += round((12 * kept + 28 * down * across) * layout.planes)
    source = min(height * width * pixel, DECODED_IN_MEMORY)
    target = min(rows * columns * pixel, WRITTEN_IN_MEMORY)
    files = held * (source + target) + target
    return round(
        cost.loaded + _SLACK * cost.per_pixel * crop * layout.planes + band + files + _CODECS
    )


def fitting_policy(
    upscaler: Upscaler, tasks: Sequence[Task], limit: int, held: int = 1
) -> TilePolicy:
    """The upscaler's policy with the largest tile that keeps this process within a limit.

    Args:
        upscaler: model and backend; its policy's tile, unless 0, stays the largest.
        tasks: all pictures to be upscaled.
        limit: bytes of resident memory.
        held: see :func:`bytes_needed`.

    Raises:
        OutOfMemoryError: if even the smallest tile does not fit, or the network cannot be tiled.
        BackendError: if memory cannot be measured on this system.
    """
    if not tasks:
        return upscaler.policy
    manifest = upscaler.manifest
    scales = [(task.grid.rows.scale, task.grid.cols.scale) for task in tasks]
    low, high = manifest.scale.min, manifest.scale.max
    largest = tuple(min(high, max(low, max(values))) for values in zip(*scales, strict=True))
    cost = measure(upscaler, (largest[0], largest[1]))
    whole = manifest.tiling == "not-allowed"
    ramp = manifest.receptive_field // 2 if manifest.tiling == "approximate" else 0
    halo = View(upscaler.stages, np.zeros((1, 3, 8, 8), np.float32), upscaler.policy).halo
    halo += manifest.tile_step - 1
    most = upscaler.policy.tile or TILES[0]
    need = 0
    for tile in (0,) if whole else (size for size in TILES if size <= most or size == TILES[-1]):
        need = max(bytes_needed(task, cost, tile, halo, held, ramp) for task in tasks)
        if need <= limit:
            return replace(upscaler.policy, tile=tile)
    how = "in one piece, as this network has to be," if whole else f"in tiles of {TILES[-1]} pixels"
    raise OutOfMemoryError(
        f"{limit / 2**20:.0f} MiB is too little memory: {how} it takes about {need / 2**20:.0f} MiB"
    )
