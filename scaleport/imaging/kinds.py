"""The kinds of image files that are read, and what a file says before it is decoded.

A kind is told by the first bytes of a file, never by its name.

The table names the libvips operation that reads each kind. Operations outside it are never
started: libvips also knows formats that name further files, such as SVG. Videos are told by their
suffix.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from scaleport.errors import ImageError
from scaleport.imaging import chunks, tiff

HEAD: Final = 64
"""How many bytes :func:`kind_of` looks at."""
CONTAINERS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Containers that are written, by suffix."""

VIDEO_SUFFIXES: Final = frozenset(CONTAINERS) | {".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts"}
"""What counts as a video."""

_RAW: Final = "a raw camera file, which has to be developed: export it as TIFF or PNG first"
_OTHER: Final = "save it as one of these first"
_FOREIGN: Final = (
    (rb"FUJIFILMCCD-RAW|IIRO|IIRS|MMOR|IIU\0|II\*\0....CR|FOVb|\0MRM|II\x1a\0\0\0HEAP", _RAW),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", f"JPEG 2000; {_OTHER}"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", f"JPEG XL; {_OTHER}"),
    (rb"8BPS", f"a Photoshop document; {_OTHER}"),
    (rb"gimp xcf", f"a GIMP document; {_OTHER}"),
    (rb"v/1\x01", f"OpenEXR; {_OTHER}"),
    (rb"#\?RADIANCE|#\?RGBE", f"Radiance HDR; {_OTHER}"),
    (rb"DDS ", f"a DDS texture; {_OTHER}"),
    (rb"qoif", f"QOI; {_OTHER}"),
    (rb"SIMPLE  =", f"FITS; {_OTHER}"),
    (rb"\0\0\x01\0", f"an icon (ICO); {_OTHER}"),
    (rb"%PDF", f"PDF; {_OTHER}"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", f"PostScript; {_OTHER}"),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|svg|!DOCTYPE svg)", f"SVG or other XML; {_OTHER}"),
    (rb"\x1a\x45\xdf\xa3|RIFF....AVI ", "a video, not an image"),
)
_HEIC_BRANDS: Final = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"miaf")
)
_BOXES: Final = 1 << 16
"""Bytes of an AVIF or HEIC file that hold the boxes before its pixels."""


@dataclass(frozen=True)
class Kind:
    """A kind of image file that is read.

    Attributes:
        name: as people call it.
        suffixes: what such files are called; lower case, with the dot.
        loader: the operation of libvips that reads it; empty for a reader of this package.
        fail_on: the least fault at which that operation fails, as libvips names them. At
            ``warning``, what its libraries guess instead of damaged data is refused.
        frames: whether the operation reads one of several frames or pages.
    """

    name: str
    suffixes: tuple[str, ...]
    loader: str = ""
    fail_on: str = "warning"
    frames: bool = False


PNG: Final = Kind("PNG", (".png", ".apng"), "pngload", "error")
JPEG: Final = Kind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "jpegload")
WEBP: Final = Kind("WebP", (".webp",), "webpload", frames=True)
TIFF: Final = Kind("TIFF", (".tif", ".tiff"), "tiffload", frames=True)
AVIF: Final = Kind("AVIF", (".avif",), "heifload", frames=True)
HEIC: Final = Kind("HEIC", (".heic", ".heif", ".hif"), "heifload", frames=True)
GIF: Final = Kind("GIF", (".gif",), "gifload", frames=True)
PNM: Final = Kind("PNM", (".pbm", ".pgm", ".ppm", ".pnm", ".pam"))
PFM: Final = Kind("PFM", (".pfm",))
BMP: Final = Kind("BMP", (".bmp", ".dib"))

KINDS: Final = (PNG, JPEG, WEBP, TIFF, AVIF, HEIC, GIF, PNM, PFM, BMP)
"""All kinds that are read."""

READABLE: Final = tuple(kind.name for kind in KINDS)
"""Their names. HEIC needs a codec that libvips is often shipped without."""

READ_SUFFIXES: Final = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)
"""Files that count as images in a folder; a file that is named itself may be called anything."""


def kind_of(path: Path, head: bytes) -> Kind:
    """The kind of a file, by its first bytes.

    Args:
        path: its name, for errors.
        head: the first :data:`HEAD` bytes, or all there are.

    Raises:
        ImageError: if it is none that is read; the message names the kind it is, if known.
    """
    known = _known(head)
    if known is not None:
        return known
    supported = f"supported are {', '.join(READABLE)}"
    if head[4:8] == b"ftyp":
        what = _RAW if head[8:12] == b"crx " else "a video, not an image"
        raise ImageError(f"{path} is {what}; {supported}")
    for pattern, what in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            raise ImageError(f"{path} is {what}; {supported}")
    suffix = path.suffix.lower()
    meant = next((kind.name for kind in KINDS if suffix in kind.suffixes), None)
    if meant is not None:
        raise ImageError(
            f"{path} is damaged or of an unsupported kind: it does not begin as a {meant} file "
            f"does; {supported}"
        )
    raise ImageError(f"{path} is of an unsupported kind; {supported}")


def _known(head: bytes) -> Kind | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and head[8:10] != b"CR":
        return TIFF
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if re.match(rb"P[1-7]\s", head):
        return PNM
    if re.match(rb"P[Ff]\s", head):
        return PFM
    return BMP if head.startswith(b"BM") else None


def _of_brands(head: bytes) -> Kind | None:
    """AVIF or HEIC, by the brands of an ISO media file: the main one and those it is fit for."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if head[8:12] == b"crx ":
        return None
    if brands & {b"avif", b"avis"}:
        return AVIF
    return HEIC if brands & _HEIC_BRANDS else None


@dataclass(frozen=True)
class Facts:
    """What a file says that libvips does not tell, or tells too late.

    Attributes:
        page: which page is read.
        alpha: whether the channel behind the colours is alpha; None to leave it to libvips.
        negative: whether 0 is white.
        density: pixels per millimetre as stored, across and down; None if not said here.
        kept: text and colour chunks, as PNG has them.
        notes: sentences about what is not read.
        check: compares checksums that the decoder does not; raises ImageError.
    """

    page: int = 0
    alpha: bool | None = None
    negative: bool = False
    density: tuple[float, float] | None = None
    kept: tuple[chunks.Chunk, ...] = ()
    notes: tuple[str, ...] = ()
    check: Callable[[], None] | None = None


def facts_of(path: Path, place: Path, kind: Kind, file: BinaryIO, most_pixels: int) -> Facts:
    """Read what a file says.

    Args:
        path: what it is called in errors.
        place: where it is read from.
        kind: its kind.
        file: the same, open.
        most_pixels: limit of what it may declare.

    Raises:
        ImageError: if it is damaged, unsupported, or declares more than ``most_pixels``.
    """
    if kind is TIFF:
        return _of_tiff(path, place, file, most_pixels)
    if kind is PNG:
        png = chunks.png_facts(path, file)
        notes = only_first(png.frames)
        if png.dropped:
            notes += ("text that is damaged or beyond 16 MiB was left out",)
        return Facts(density=png.density, kept=png.kept, notes=notes)
    if kind is JPEG:
        jpeg = chunks.jpeg_facts(file)
        notes = only_first(jpeg.pictures, "pictures")
        notes += ("comments were left out",) if jpeg.comments else ()
        return Facts(density=jpeg.density, notes=notes)
    if kind in (AVIF, HEIC):
        file.seek(0)
        return Facts(kept=chunks.colours_of_boxes(file.read(_BOXES)))
    return Facts()


def _of_tiff(path: Path, place: Path, file: BinaryIO, most_pixels: int) -> Facts:
    said = tiff.read_facts(path, file)
    # Before libvips, which complains on stderr of sizes beyond its own limit.
    check_size(path, said.width, said.height, most_pixels)

    def check() -> None:
        tiff.check_deflate(place, path, said.page)

    return Facts(
        page=said.page,
        alpha=said.alpha,
        negative=said.photometric == 0,
        density=said.density,
        notes=only_first(said.pages),
        check=check if said.deflate else None,
    )


def only_first(count: int, what: str = "frames") -> tuple[str, ...]:
    """The note about a file that holds several pictures."""
    return (f"only the first of {count} {what} was read",) if count > 1 else ()


def check_size(path: Path, width: int, height: int, most_pixels: int) -> None:
    """Refuse pictures that declare too many pixels; raises ImageError."""
    if width * height > most_pixels:
        raise ImageError(f"{path} declares too many pixels, {width}x{height}")


def is_video(path: Path) -> bool:
    """Whether a path is called like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES
