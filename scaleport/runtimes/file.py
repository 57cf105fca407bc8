"""From image file to image file, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.errors import ImageError, UsageError
from scaleport.imaging.given import FLOATS_FROM, FLOATS_TO
from scaleport.imaging.metadata import left_out
from scaleport.imaging.reading import Picture, open_picture
from scaleport.imaging.source import PictureSource, Source
from scaleport.imaging.writing import PictureWriter, SaveOptions, check_fits
from scaleport.paths import make_folder, path_of
from scaleport.progress import Progress
from scaleport.runtimes.scales import Fit, checked_grid, fitted, stretch_note
from scaleport.runtimes.upscaler import Upscaler, loaded
from scaleport.runtimes.view import View

BITS: Final = {8: np.uint8, 16: np.uint16, 32: np.float32}
"""Bits per channel, and the type of such pixels; 32 are floats."""


@dataclass(frozen=True)
class FileResult:
    """What was done.

    Attributes:
        input_size: height and width of the picture that was read.
        output_size: height and width of the picture that was written.
        notes: sentences about anything that was not kept, or done differently.
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
    size: tuple[int, int] | Fit | None = None,
    bits: int = 0,
    options: SaveOptions | None = None,
    progress: Progress | None = None,
) -> FileResult:
    """Upscale an image file.

    Regions are read, upscaled and written band by band: memory depends on the tile size and the
    width of the output, not on the size of the image. The target appears when it is complete.

    Args:
        upscaler: model and backend.
        source: image file, see :func:`scaleport.imaging.reading.open_picture`.
        target: image file to write; its suffix chooses the format. A missing folder is made.
        scale: one number, or (scale_y, scale_x).
        size: output size (height, width), or limits that the picture's shape is fitted into,
            instead of a scale.
        bits: 8, 16 or 32 (float) bits per channel; 0 keeps those of the source.
        options: how the target is written.
        progress: told of the tiles that are done, see :mod:`scaleport.progress`.

    Raises:
        ImageError: if the source cannot be read.
        ScaleError: if the scale or size is out of range.
        OutputError: if the target cannot be written, or cannot hold such pixels.
        BackendError: if the backend fails.
        OutOfMemoryError: if even the smallest tile does not fit into memory.
        UsageError: if ``bits`` is another number, or a path is not one.
    """
    work = FileUpscale(upscaler, source, target, scale, size, bits, options)
    try:
        work.render(progress)
        return work.finish()
    finally:
        work.discard()


class FileUpscale:
    """The upscaling of one file in steps, so that several files can be at different ones.

    Making it opens the source and checks the request; :meth:`preload` decodes, :meth:`render` runs
    the model, :meth:`finish` encodes. Each may run in another thread, one after the other, but one
    upscaler renders one file at a time. :meth:`discard` when done with it, in any case.

    Args and errors are those of :func:`upscale_file`.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        source: Path | str,
        target: Path | str,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | Fit | None = None,
        bits: int = 0,
        options: SaveOptions | None = None,
    ) -> None:
        if bits and bits not in BITS:
            raise UsageError(f"bits per channel are 8, 16 or 32, not {bits}")
        self._upscaler, self._options = loaded(upscaler), options
        self._picture: Picture | None = open_picture(source)
        self._source, self._target = Path(source), path_of(target, "the output")
        self._scale = tuple(scale) if isinstance(scale, Iterable) else scale
        self._size = fitted(size, self._picture.shape)
        grid = checked_grid(upscaler.manifest, *self._picture.shape, self._scale, self._size)
        self._layout = self._picture.layout
        if bits:
            self._layout = replace(self._layout, dtype=np.dtype(BITS[bits]))
        # A target that cannot hold the pixels is refused before any is read.
        make_folder(self._target.parent)
        kind = check_fits(self._target, *grid.output_size, self._layout)
        notes = self._picture.notes
        if isinstance(size, tuple):
            notes += stretch_note(self._picture.shape, size)
        notes += left_out(self._picture.metadata, kind, self._layout, grid.output_size)
        self._result = FileResult(self._picture.shape, grid.output_size, notes, 0)
        self._view: View | None = None
        self._writer: PictureWriter | None = None

    def preload(self) -> None:
        """Decode the source: into memory, or into a temporary file if it is large.

        Raises:
            ImageError: if the source is damaged.
        """
        assert self._picture is not None
        self._picture.read(0, 0, 1, 1)
        self._view = self._opened()

    def _opened(self) -> View:
        assert self._picture is not None
        # Every tile is rendered once: there is no next rendering to keep features for.
        policy = replace(self._upscaler.policy, cache_bytes=0)
        return View(self._upscaler.stages, self._picture, policy)

    def render(self, progress: Progress | None = None) -> None:
        """Upscale all of the picture; afterwards, the source is no longer needed."""
        assert self._picture is not None
        view = self._view or self._opened()
        height, width = self._result.output_size
        self._writer = PictureWriter(
            self._target, height, width, self._layout, self._picture.metadata, self._options
        )
        bands = view.bands(self._scale, self._size, progress=progress, dtype=self._layout.dtype)
        try:
            for band in bands:
                self._writer.write(band)
                del band  # not while the next one is made
        except ImageError as error:
            if str(self._source) in str(error):
                raise
            raise ImageError(f"{self._source}: {error}") from error
        tile = view.policy.tile or 0
        notes = self._result.notes
        if tile != self._upscaler.policy.tile:
            notes += (f"memory ran out; continued with tiles of {tile} pixels",)
        notes += _float_notes(view.source)
        self._result = replace(self._result, notes=notes, tile=tile)
        self._picture = self._view = None

    def finish(self) -> FileResult:
        """Encode the result and put it under its name."""
        assert self._writer is not None
        self._writer.finish()
        return self._result

    def cancel(self) -> None:
        """Have :meth:`finish`, which another thread is at, fail soon."""
        if self._writer is not None:
            self._writer.cancel()

    def discard(self) -> None:
        """Drop everything but a finished target."""
        self._picture = self._view = None
        if self._writer is not None:
            self._writer.discard()


def _float_notes(source: Source) -> tuple[str, ...]:
    """What has to be said of a file of floats that is not in [0, 1]."""
    low, high = source.reach if isinstance(source, PictureSource) else (0.0, 1.0)
    if not (low < FLOATS_FROM or high > FLOATS_TO):
        return ()
    return (
        f"its floats go from {low:.4g} to {high:.4g} and were taken as they are, with [0, 1] for "
        "black to white",
    )
