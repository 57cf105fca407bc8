"""Writing image files through libvips, whole or band by band; complete or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np

from scaleport.atomic import Pending
from scaleport.errors import ImageError, OutputError, UsageError
from scaleport.imaging import strips
from scaleport.imaging.convert import Layout, Pixels
from scaleport.imaging.kinds import READ_SUFFIXES
from scaleport.imaging.metadata import Metadata, describe, finish_file, kept_fields
from scaleport.imaging.vips import libvips, native, reason

WRITABLE: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
"""File formats by suffix."""

_SUFFIXES: Final = ", ".join(WRITABLE)
_LONGEST_SIDE: Final = {"JPEG": 65_500, "WebP": 16_383, "AVIF": 16_384}
_DEEP: Final = ("PNG", "TIFF")
WRITTEN_IN_MEMORY: Final = 32 << 20
"""Bytes of pixels up to which a picture that is written in bands is kept in memory."""
_FORMATS: Final = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}


@dataclass(frozen=True)
class VideoOptions:
    """How a video is written.

    Attributes:
        codec: name of an encoder of FFmpeg, e.g. ``libx264`` or ``libx265``.
        crf: constant rate factor of x264 and x265, 0 (best) to 51.

    Raises:
        UsageError: if ``crf`` is out of range.
    """

    codec: str = "libx264"
    crf: int = 18

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.crf <= 51:
            raise UsageError(f"crf must be from 0 to 51, got {self.crf}")


@dataclass(frozen=True)
class SaveOptions:
    """How a file is written.

    Attributes:
        quality: quality of JPEG, AVIF and lossy WebP, 1 to 100. Colour keeps its full resolution.
        lossless: write WebP and AVIF without loss.
        compression: effort of PNG's lossless compression, 0 to 9.

    Raises:
        UsageError: if a number is out of range.
    """

    quality: int = 95
    lossless: bool = False
    compression: int = 6

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be from 1 to 100, got {self.quality}")
        if not 0 <= self.compression <= 9:
            raise UsageError(f"compression must be from 0 to 9, got {self.compression}")


def check_target(path: Path | str) -> str:
    """The format that a path stands for; lets a program refuse a target before the work.

    Raises:
        OutputError: if the suffix is unknown or the directory does not exist.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    kind = WRITABLE.get(suffix)
    if kind is None:
        if suffix in READ_SUFFIXES:
            raise OutputError(f"{suffix} files are read but not written; use {_SUFFIXES}")
        raise OutputError(
            f"cannot tell the format of {path} from its suffix; use one of {_SUFFIXES}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {path.parent}")
    return kind


def check_fits(path: Path, height: int, width: int, layout: Layout) -> str:
    """The format of a target that is to hold such a picture.

    Raises:
        OutputError: if the format cannot hold it; the message says what can.
    """
    kind = check_target(path)
    if layout.has_alpha and kind == "JPEG":
        raise OutputError(f"{path}: JPEG cannot hold alpha; use .png, .webp or .tiff")
    if layout.dtype == np.uint16 and kind not in _DEEP:
        raise OutputError(
            f"{path}: {kind} cannot hold 16 bits per channel; use .png or .tiff, or --bits 8"
        )
    if layout.dtype.kind == "f" and kind != "TIFF":
        raise OutputError(f"{path}: {kind} cannot hold floats; use .tiff, or --bits 8 or 16")
    longest = _LONGEST_SIDE.get(kind)
    if longest and max(height, width) > longest:
        raise OutputError(
            f"{path}: {kind} cannot hold {width}x{height} pixels, a side is at most {longest}; "
            "use .png or .tiff"
        )
    return kind


class PictureWriter:
    """A file that is being written from top to bottom; a context manager.

    The file appears under its name, replacing an older one, when everything has been written and
    the context is left without an error. Large pictures wait in a temporary file beside it.

    Args:
        path: target; its suffix chooses the format, see :data:`WRITABLE`.
        height: pixels.
        width: pixels.
        layout: of the bands to come.
        metadata: what to keep with the pixels.
        options: how to write.

    Raises:
        OutputError: if the format cannot hold the picture, or nothing can be written there.
    """

    def __init__(
        self,
        path: Path | str,
        height: int,
        width: int,
        layout: Layout,
        metadata: Metadata | None = None,
        options: SaveOptions | None = None,
    ) -> None:
        self._path = Path(path)
        self._kind = check_fits(self._path, height, width, layout)
        self._size, self._layout = (height, width), layout
        self._metadata, self._options = metadata or Metadata(), options or SaveOptions()
        self._row = 0
        self._parts: list[bytes] = []
        self._raw: BinaryIO | None = None
        self._image: Any = None
        self._cancelled = False
        with _file_errors(self._path):
            self._new, self._waiting = Pending(self._path), Pending(self._path, "raw")
        bands = layout.channels or 1
        if height * width * bands * layout.dtype.itemsize > WRITTEN_IN_MEMORY:
            with _file_errors(self._path):
                self._raw = strips.create(self._waiting.path, height, width, layout)

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()

    def finish(self) -> None:
        """Encode what was written and put the file under its name; any thread may do so.

        Raises:
            ImageError: if rows are missing.
            OutputError: if the file cannot be written.
        """
        try:
            if self._raw is not None:
                with _file_errors(self._path):
                    self._raw.close()
            self._finish()
        finally:
            self.discard()

    def cancel(self) -> None:
        """Have :meth:`finish`, which another thread is at, fail soon and leave nothing."""
        self._cancelled = True
        if self._image is not None:
            self._image.set_kill(True)

    def discard(self) -> None:
        """Forget what was written; a file that is finished stays."""
        self._parts.clear()
        if self._raw is not None:
            with contextlib.suppress(OSError):
                self._raw.close()
        self._waiting.discard()
        self._new.discard()

    def write(self, band: Pixels) -> None:
        """Add rows, [rows, width] or [rows, width, C] of the layout's type.

        Raises:
            ImageError: if they do not fit what was announced.
            OutputError: if they cannot be written.
        """
        height, width = self._size
        channels = (self._layout.channels,) if self._layout.channels else ()
        fits = band.shape[1:] == (width, *channels) and self._row + len(band) <= height
        if not fits or band.dtype.newbyteorder("=") != self._layout.dtype:
            raise ImageError(f"a band of {band.dtype} {band.shape} does not fit the picture")
        self._row += len(band)
        data = np.ascontiguousarray(band, dtype=self._layout.dtype)
        if self._raw is None:
            self._parts.append(data.tobytes())
            return
        with _file_errors(self._path):
            little = data.dtype.newbyteorder("<")
            self._raw.write(data.astype(little, copy=False).data)

    def _finish(self) -> None:
        height, width = self._size
        if self._row != height:
            raise ImageError(f"{self._row} of {height} rows were written to {self._path}")
        vips, bands = libvips(), self._layout.channels or 1
        form = _FORMATS[self._layout.dtype.name]
        with _file_errors(self._path):
            if self._raw is None:
                data = b"".join(self._parts)
                image = vips.Image.new_from_memory(data, width, height, bands, form)
            else:
                image = vips.Image.tiffload(native(self._waiting.path), access="sequential")
            image = describe(image, self._layout, self._metadata, self._kind)
            self._image = image
            keep = kept_fields(self._metadata, self._kind)
            encode(image, self._new.path, self._kind, self._options, keep)
            finish_file(self._new.path, self._metadata, self._kind)
            if self._cancelled:
                raise OutputError(f"{self._path} is not written: the program was stopped")
            self._new.commit()


def encode(image: Any, path: Path, kind: str, options: SaveOptions, keep: int) -> None:
    """Write a libvips image to a file of a kind; ``keep`` are libvips's flags of metadata."""
    quality = {"Q": options.quality, "lossless": options.lossless}
    # JPEG and AVIF at full colour resolution: text and line art suffer most from less.
    saved: dict[str, tuple[str, dict[str, Any]]] = {
        "PNG": ("pngsave", {"compression": options.compression}),
        "JPEG": ("jpegsave", {"Q": options.quality, "subsample_mode": "off"}),
        "WebP": ("webpsave", {**quality, "exact": True}),
        "TIFF": ("tiffsave", {"compression": "deflate", "predictor": "horizontal"}),
        "AVIF": ("heifsave", {**quality, "compression": "av1", "subsample_mode": "off"}),
    }
    name, settings = saved[kind]
    if kind == "TIFF":
        if image.format == "float":
            settings = {**settings, "predictor": "float"}
        settings["bigtiff"] = image.width * image.height * image.bands * 4 > 1 << 31
    getattr(image, name)(native(path), keep=keep, **settings)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except libvips().Error as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise OutputError(f"cannot write {path}: {why or error}") from error
