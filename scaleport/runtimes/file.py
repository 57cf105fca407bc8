"""From image file to image file, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.errors import UsageError
from scaleport.imaging.reading import open_picture
from scaleport.imaging.writing import PictureWriter, SaveOptions
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import Progress, checked_grid

BITS: Final = {8: np.uint8, 16: np.uint16, 32: np.float32}
"""Bits per channel, and the type of such pixels; 32 are floats."""


@dataclass(frozen=True)
class FileResult:
    """What was done.

    Attributes:
        input_size: height and width of the picture that was read.
        output_size: height and width of the picture that was written.
        notes: sentences about what was not kept, or done differently.
        tile: the tile size in use at the end, in input pixels; 0 for no tiles.
    """

    input_size: tuple[int, int]
    output_size: tuple[int, int]
    notes: tuple[str, ...]
    tile: int


def upscale_file(
    upscaler: Upscaler,
    source: Path | str,
    target: Path | str,
    scale: float | Iterable[float] | None = None,
    size: tuple[int, int] | None = None,
    bits: int = 0,
    options: SaveOptions | None = None,
    progress: Progress | None = None,
) -> FileResult:
    """Upscale an image file.

    Regions are read, upscaled and written band by band: memory follows the tile size and the width
    of the output, not the size of the image. The target appears when it is complete.

    Args:
        upscaler: model and backend.
        source: image file, see :func:`scaleport.imaging.reading.open_picture`.
        target: image file to be; its suffix chooses the format.
        scale: one number, or (scale_y, scale_x).
        size: output size (height, width), instead of a scale.
        bits: 8, 16 or 32 (float) bits per channel; 0 keeps those of the source.
        options: how the target is written.
        progress: called with (tiles done, tiles in all).

    Raises:
        ImageError: if the source cannot be read.
        ScaleError: if the scale or size is out of range.
        OutputError: if the target cannot be written, or cannot hold such pixels.
        BackendError: if the backend fails.
        OutOfMemoryError: if even the smallest tile does not fit into memory.
        UsageError: if ``bits`` is another number.
    """
    if bits and bits not in BITS:
        raise UsageError(f"bits per channel are 8, 16 or 32, not {bits}")
    picture = open_picture(source)
    scale = tuple(scale) if isinstance(scale, Iterable) else scale
    grid = checked_grid(upscaler.manifest, *picture.shape, scale, size)
    layout = picture.layout
    if bits:
        layout = replace(layout, dtype=np.dtype(BITS[bits]))
    notes = picture.notes
    height, width = grid.output_size
    with PictureWriter(target, height, width, layout, picture.metadata, options) as writer:
        # A target that cannot hold the pixels is refused before any is read.
        view = upscaler.open(picture)
        for band in view.bands(scale, size, progress=progress, dtype=layout.dtype):
            writer.write(band)
    if view.policy != upscaler.policy:
        notes += (f"memory ran out; went on with tiles of {view.policy.tile} pixels",)
    if Path(target).suffix.lower() in (".tif", ".tiff") and "exif-data" in picture.metadata.fields:
        notes += ("TIFF keeps no EXIF block",)
    return FileResult(picture.shape, (height, width), notes, view.policy.tile)
