"""Reading image files through libvips: a whole picture, or any region of one too large for memory.

Files are opened for random access: what does not fit a memory threshold is decoded once to a
temporary file, and regions are read from there.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.errors import ImageError, OutOfMemoryError
from scaleport.imaging.convert import Layout, Pixels
from scaleport.imaging.vips import find_loader, libvips, reason

MOST_PIXELS: Final = 1 << 30
"""Larger pictures are refused: a file of some kilobytes can declare any size."""

READABLE: Final = ("PNG", "JPEG", "WebP", "TIFF", "AVIF", "HEIC", "GIF", "PPM", "BMP")
"""File formats that are read, whatever the file is called. HEIC depends on the codec at hand."""

_LOADERS: Final = ("png", "jpeg", "webp", "tiff", "heif", "gif", "nsgif")
# Others are never started: libvips also knows formats that name further files, such as SVG.
_THROUGH_PILLOW: Final = (b"BM", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
_FIELDS: Final = ("exif-", "icc-profile-data", "xmp-data", "iptc-data", "image-description")
_SEVERAL: Final = ("gif", "nsgif", "tiff", "webp")
# libvips formats, and the types that pixels are kept in.
_TYPES: Final = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture: ICC profile, EXIF, XMP and IPTC, as libvips names them.

    EXIF sizes and orientation are not among them; they are written anew.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def icc(self) -> bytes | None:
        """ICC colour profile."""
        found = self.fields.get("icc-profile-data")
        return None if found is None else bytes(found)


class Picture:
    """An open image file, upright. Made by :func:`open_picture`.

    Attributes:
        layout: channels and type of its pixels, uint8, uint16 or float32.
        metadata: what belongs to the pixels.
        notes: sentences about what the file held and the pixels do not.
    """

    def __init__(
        self, path: Path, image: Any, layout: Layout, metadata: Metadata, notes: tuple[str, ...]
    ) -> None:
        self._path = path
        self._image = image
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
        region = (left, top, (right or width) - left, (bottom or height) - top)
        try:
            found: Pixels = self._image.crop(*region).numpy()
        except MemoryError as error:
            raise OutOfMemoryError(f"{self._path} does not fit into memory") from error
        except libvips().Error as error:
            raise ImageError(f"{self._path} is damaged: {reason(error)}") from error
        if self.layout.channels:
            return found.reshape(*found.shape[:2], self.layout.channels)
        return found.reshape(found.shape[:2])

    def uniform_alpha(self) -> bool:
        """Whether there is alpha and all of it is the same; reads the whole file."""
        if not self.layout.has_alpha:
            return False
        try:
            alpha = self._image[self.layout.channels - 1]
            return bool(alpha.min() == alpha.max())
        except libvips().Error as error:
            raise ImageError(f"{self._path} is damaged: {reason(error)}") from error


def open_picture(path: Path | str) -> Picture:
    """Open an image file without decoding it yet.

    Palettes, CMYK and other colour spaces become RGB, bilevel pictures 8-bit gray, and orientation
    is undone. 8 and 16 bits per channel and 32-bit floats stay what they are; floats are taken as
    they are, with [0, 1] for black to white. Of several frames or pages the first is read.

    Raises:
        ImageError: if the file is missing, empty, damaged or of an unsupported kind, or declares
            more than :data:`MOST_PIXELS`.
    """
    path = Path(path)
    head = _head(path)
    vips = libvips()
    if head[:2] in _THROUGH_PILLOW:
        return _open_plain(path)
    operation = find_loader(path)
    kind = operation.removeprefix("VipsForeignLoad").removesuffix("File").lower()
    if kind not in _LOADERS:
        raise _unknown(path)
    try:
        loader = vips.Operation.call(operation, str(path), fail_on="truncated")
    except vips.Error as error:
        raise ImageError(f"{path} is damaged: {reason(error)}") from error
    if loader.width * loader.height > MOST_PIXELS:
        raise ImageError(f"{path} declares too many pixels, {loader.width}x{loader.height}")
    notes: tuple[str, ...] = ()
    pages = loader.get("n-pages") if "n-pages" in loader.get_fields() else 1
    if kind in _SEVERAL and pages > 1:
        notes = (f"only the first of {pages} frames was read",)
    try:
        image, layout = _converted(path, loader.autorot())
    except vips.Error as error:
        raise ImageError(f"{path} is damaged: {reason(error)}") from error
    fields = {n: image.get(n) for n in image.get_fields() if n.startswith(_FIELDS)}
    return Picture(path, image, layout, Metadata(fields), notes)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"cannot read {path}: {why or error}") from error
    if not head:
        raise ImageError(f"{path} is empty (0 bytes)")
    return head


def _unknown(path: Path) -> ImageError:
    return ImageError(
        f"{path} is damaged or of an unsupported kind; supported are {', '.join(READABLE)}"
    )


def _converted(path: Path, image: Any) -> tuple[Any, Layout]:
    """The picture in gray or RGB, 8 or 16 bits or float, with its layout."""
    if image.interpretation == "cmyk":
        # CMYK means nothing without a profile; one that comes with the library stands in.
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk")
        image = _without(image, "icc-profile-data")
    elif image.interpretation in ("lab", "labs", "xyz", "lch", "yxy", "oklab", "oklch"):
        image = _without(image.colourspace("srgb"), "icc-profile-data")
    if image.format in ("double", "float"):
        image = image.cast("float")
    elif image.format in ("uint", "int", "short"):
        if image.min() < 0 or image.max() > 0xFFFF:
            raise ImageError(f"{path} holds 32-bit integers beyond the range of 16 bits")
        image = image.cast("ushort")
    if image.format not in _TYPES or not 1 <= image.bands <= 4:
        raise ImageError(
            f"{path} has pixels of an unsupported kind ({image.bands} bands of {image.format})"
        )
    if image.bands == 4 and not image.hasalpha():
        raise ImageError(f"{path} has 4 colour channels, which no conversion is known for")
    channels = 0 if image.bands == 1 else image.bands
    return image, Layout(channels, np.dtype(_TYPES[image.format]))


def _without(image: Any, name: str) -> Any:
    image = image.copy()
    if name in image.get_fields():
        image.remove(name)
    return image


def _open_plain(path: Path) -> Picture:
    """BMP and PPM, which libvips is often built without, through Pillow and in memory."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(path.read_bytes()), formats=["BMP", "PPM"]) as found:
            if found.width * found.height > MOST_PIXELS:
                raise ImageError(f"declares too many pixels, {found.width}x{found.height}")
            pixels = np.asarray(found.convert("L" if found.mode in ("1", "L") else "RGB"))
    except Exception as error:
        raise ImageError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    layout = Layout(0 if pixels.ndim == 2 else 3, np.dtype(np.uint8))
    image = libvips().Image.new_from_array(np.ascontiguousarray(pixels))
    return Picture(path, image, layout, Metadata(), ())
