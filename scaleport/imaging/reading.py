"""The one door for image files: upscaling, training, evaluation and calibration all read here.

Most kinds are decoded by libvips, for random access: what does not fit a memory threshold is
decoded once to a temporary file, and regions are read from there. A damaged file is an error, and
never becomes other pixels where its format lets damage be seen.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from scaleport.errors import ImageError, OutOfMemoryError
from scaleport.imaging.convert import Layout, Pixels
from scaleport.imaging.kinds import (
    BMP,
    GIF,
    HEAD,
    HEIC,
    JPEG,
    PFM,
    PNG,
    PNM,
    READABLE,
    TIFF,
    Facts,
    Kind,
    check_size,
    facts_of,
    kind_of,
    only_first,
)
from scaleport.imaging.metadata import FIELDS, Metadata
from scaleport.imaging.plain import read_plain
from scaleport.imaging.vips import (
    field_names,
    libvips,
    native,
    reason,
    system_fault,
    to_gray_or_rgb,
)
from scaleport.paths import address_problem, path_of

__all__ = ["MOST_PIXELS", "READABLE", "Metadata", "Picture", "open_picture"]

MOST_PIXELS: Final = 1 << 30
"""Larger pictures are refused: a file of some kilobytes can declare any size."""

# libvips formats, and the types that pixels are kept in.
_TYPES: Final = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_MISSING_CODEC: Final = re.compile(
    r"not configured|not implemented|[Uu]nsupported (codec|feature|image type)|"
    r"No decoding plugin|loading plugin|not been built in|not built with|compression scheme",
)
# What libjpeg warns of though no pixel is in doubt.
_HARMLESS: Final = re.compile(r"Invalid SOS parameters|JFIF revision|Adobe color transform")
_UNKNOWN_DENSITIES: Final = (72 / 25.4, 1.0)
"""What EXIF and libvips have, in pixels per millimetre, for a density that is not known."""
_PIECE: Final = 1 << 20


class Picture:
    """An open image file, upright. Made by :func:`open_picture`.

    Attributes:
        layout: channels and type of its pixels, uint8, uint16 or float32.
        metadata: what belongs to the pixels.
        notes: sentences about what the file held and the pixels do not.
    """

    def __init__(
        self,
        path: Path,
        image: Any,
        layout: Layout,
        metadata: Metadata,
        notes: tuple[str, ...],
        checked: Callable[[], None] | None = None,
        lenient: Callable[[], Any] | None = None,
    ) -> None:
        self._path = path
        self._image = image
        self._checked, self._lenient = checked, lenient
        self._spool: Any = None
        self.layout = layout
        self.metadata = metadata
        self.notes = notes

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self._image.height), int(self._image.width)

    def read(self, top: int = 0, left: int = 0, bottom: int = 0, right: int = 0) -> Pixels:
        """Pixels of a region, of everything if nothing is given: [rows, columns] or [.., C].

        Raises:
            ImageError: if the file turns out to be damaged.
            OutOfMemoryError: if the region does not fit into memory.
        """
        height, width = self.shape
        rows, columns = (bottom or height) - top, (right or width) - left
        try:
            data = self._from(lambda image: image.crop(left, top, columns, rows).write_to_memory())
            channels = (self.layout.channels,) if self.layout.channels else ()
            return np.frombuffer(data, self.layout.dtype).reshape(rows, columns, *channels)
        except MemoryError as error:
            raise OutOfMemoryError(f"{self._path} does not fit into memory") from error

    def uniform_alpha(self) -> bool:
        """Whether there is alpha and all of it is the same; reads the whole file."""
        if not self.layout.has_alpha:
            return False
        last = self.layout.channels - 1
        return bool(self._from(lambda image: image[last].min() == image[last].max()))

    def _from(self, work: Callable[[Any], Any]) -> Any:
        """What is made of the pixels; the first time, they are decoded and checked."""
        if self._checked is not None:
            self._checked()
            self._checked = None
        vips = libvips()
        try:
            return work(self._image)
        except vips.Error as error:
            if self._lenient is None or not _HARMLESS.search(reason(error)):
                raise _fault(self._path, error) from error
        try:
            self._image, self._lenient = self._lenient(), None
            return work(self._image)
        except vips.Error as error:
            raise _fault(self._path, error) from error


def open_picture(path: Path | str) -> Picture:
    """Open an image file without decoding it yet.

    Palettes, CMYK and other colour spaces become RGB, bilevel pictures 8-bit gray, and orientation
    is undone. 8 and 16 bits per channel and 32-bit floats stay what they are, 10 and 12 bits are
    spread over 16; floats are taken as they are, with [0, 1] for black to white. Of several frames
    or pages the first is read. A pipe is read to its end first.

    Raises:
        ImageError: if the file is missing, empty, damaged or of an unsupported kind, or declares
            more than :data:`MOST_PIXELS`.
        UsageError: if ``path`` is no path.
    """
    if problem := address_problem(path):
        raise ImageError(problem)
    path = path_of(path, "an image file", "; to upscale pixels, call the upscaler: up(image, 2)")
    spool, place = _spooled(path)
    try:
        with place.open("rb") as file:
            head = file.read(HEAD)
            if not head:
                raise ImageError(f"{path} is empty (0 bytes)")
            kind = kind_of(path, head)
            picture = _open(path, place, kind, file)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    # Deleted when the picture is.
    picture._spool = spool
    return picture


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    why = error.strerror if isinstance(error, OSError) else str(error)
    return ImageError(f"cannot read {path}: {why or error}")


def _spooled(path: Path) -> tuple[Any, Path]:
    """A place to read a file from at any position; what is no regular file is copied first."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return None, path
        spool = tempfile.NamedTemporaryFile(prefix="scaleport-")  # noqa: SIM115
        with path.open("rb") as source:
            shutil.copyfileobj(source, spool, _PIECE)
        spool.flush()
        return spool, Path(spool.name)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _open(path: Path, place: Path, kind: Kind, file: BinaryIO) -> Picture:
    if kind in (BMP, PNM, PFM):
        return _open_plain(path, place, kind)
    facts = facts_of(path, place, kind, file, MOST_PIXELS)
    vips = libvips()

    def load(fail_on: str) -> Any:
        options = {"fail_on": fail_on, **({"page": facts.page} if facts.page else {})}
        return vips.Operation.call(kind.loader, native(place), **options)

    def lenient() -> Any:
        return _prepared(path, load("error"), facts)[0]

    fail_on = kind.fail_on
    try:
        try:
            loaded = load(fail_on)
        except vips.Error:
            if fail_on != "warning" or kind is GIF:
                raise
            # Warnings about the header alone leave no pixel in doubt.
            fail_on = "error"
            loaded = load(fail_on)
        check_size(path, loaded.width, loaded.height, MOST_PIXELS)
        image, layout = _prepared(path, loaded, facts)
    except vips.Error as error:
        raise _fault(path, error, kind) from error
    names = field_names(loaded)
    notes = facts.notes
    if kind.frames and kind is not TIFF:
        notes += only_first(loaded.get("n-pages") if "n-pages" in names else 1)
    metadata = _metadata(image, loaded, names, kind, facts)
    harmless = lenient if kind is JPEG and fail_on == "warning" else None
    return Picture(path, image, layout, metadata, notes, facts.check, harmless)


def _metadata(image: Any, loaded: Any, names: list[str], kind: Kind, facts: Facts) -> Metadata:
    """What belongs to the pixels of an upright image, which was loaded as ``loaded``."""
    turn = loaded.get("orientation") if "orientation" in names else 1
    fields = _fields(image, names)
    density = facts.density
    if density is None and kind is not PNG and "exif-data" in fields:
        density = _density_of_exif(image)
    if density is not None and turn >= 5:
        density = (density[1], density[0])
    return Metadata(fields, density, facts.kept, (image.height, image.width), turn > 1)


def _prepared(path: Path, image: Any, facts: Facts) -> tuple[Any, Layout]:
    """The picture upright in gray or RGB, 8 or 16 bits or float, with its layout."""
    image = to_gray_or_rgb(path, image.autorot(), facts.alpha, facts.negative)
    if image.format not in _TYPES or not 1 <= image.bands <= 4:
        raise ImageError(
            f"{path} has pixels of an unsupported kind ({image.bands} bands of {image.format})"
        )
    channels = 0 if image.bands == 1 else image.bands
    return image, Layout(channels, np.dtype(_TYPES[image.format]))


def _fields(image: Any, names: list[str]) -> dict[str, Any]:
    fields = {}
    for name in names:
        # Turning the picture upright took some of them away.
        if name.startswith(FIELDS) and image.get_typeof(name):
            try:
                fields[name] = image.get(name)
            except UnicodeDecodeError:
                continue  # text in another encoding, which libvips would write as it is not
    return fields


def _density_of_exif(image: Any) -> tuple[float, float] | None:
    found = (float(image.xres), float(image.yres))
    unknown = any(
        all(abs(value - nothing) < 1e-6 for value in found) for nothing in _UNKNOWN_DENSITIES
    )
    return None if unknown or min(found) <= 0 else found


def _open_plain(path: Path, place: Path, kind: Kind) -> Picture:
    found = read_plain(path, place, kind, MOST_PIXELS)
    pixels = found.pixels
    channels = 0 if pixels.ndim == 2 else pixels.shape[2]
    height, width = pixels.shape[:2]
    form = {np.dtype(kind): name for name, kind in _TYPES.items()}[pixels.dtype]
    image = libvips().Image.new_from_memory(pixels.tobytes(), width, height, channels or 1, form)
    metadata = Metadata(density=found.density, shape=(height, width))
    return Picture(path, image, Layout(channels, pixels.dtype), metadata, found.notes)


def _fault(path: Path, error: Exception, kind: Kind | None = None) -> ImageError:
    """What it means that libvips failed: the system, a codec that is missing, or damage."""
    system = system_fault(error)
    # libvips names the file again, and each place that it tried to go to.
    parts = [part for part in reason(error).split("; ") if ": bad seek to " not in part]
    why = "; ".join(part.removeprefix(f"{path}: ") for part in parts) or "it is cut off"
    if why.startswith("unable to "):  # libvips tells which call failed and not why
        why = "it cannot be decoded"
    if system:
        return ImageError(f"cannot read {path}: {system}")
    if _MISSING_CODEC.search(why):
        save = "save it as PNG or TIFF without that first"
        if kind is HEIC or "heif" in why:
            return ImageError(
                f"{path} is HEIC or AVIF with a codec that libvips here does not have ({why}); "
                "save it as PNG or JPEG first"
            )
        return ImageError(f"{path} uses what libvips here does not have ({why}); {save}")
    return ImageError(f"{path} is damaged: {why}")
