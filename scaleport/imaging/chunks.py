"""What PNG and JPEG files say beside their pixels, read and changed piece by piece.

libvips keeps EXIF, XMP, IPTC and profiles. It drops gamma and other colour chunks of PNG, mixes up
text in Latin-1, and writes a density where none is known.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from scaleport.errors import ImageError

Chunk = tuple[bytes, bytes]
"""Type and data of a PNG chunk."""

TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")
COLOUR: Final = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi")
_XMP: Final = b"XML:com.adobe.xmp\0"
_READ: Final = (*TEXT, *COLOUR, b"pHYs", b"acTL", b"eXIf", b"tRNS", b"PLTE", b"iCCP")
# Numbers of ITU-T H.273: BT.709 or not stated; its curve, those of BT.601, sRGB or not stated.
_LIKE_SRGB_PRIMARIES: Final = (1, 2)
_LIKE_SRGB_TRANSFER: Final = (1, 2, 6, 13, 14, 15)
_MOST_TEXT: Final = 16 << 20
"""Bytes of text chunks that are kept of a file."""
_MOST_SEGMENTS: Final = 4096
_MILLIMETRES_PER_METRE: Final = 1000
_JFIF_UNKNOWN: Final = struct.pack(">BHH", 0, 1, 1)
"""A ratio of 1 without a unit: square pixels of unknown size."""


@dataclass(frozen=True)
class PngFacts:
    """What a PNG file says.

    Attributes:
        kept: text and colour chunks, as they are in the file.
        density: pixels per millimetre, horizontally and vertically; None if not said.
        frames: of an animation; 1 for a picture.
        dropped: whether there is more text than is kept, or text that is damaged.
    """

    kept: tuple[Chunk, ...]
    density: tuple[float, float] | None
    frames: int
    dropped: bool


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Type, place of the data and its size of each chunk; ends where the file does."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        place = file.tell()
        yield kind, place, size
        if kind == b"IEND":
            return
        file.seek(place + size + 4)


def png_facts(path: Path, file: BinaryIO) -> PngFacts:
    """Read the chunks that tell something.

    Raises:
        ImageError: if a chunk is damaged that pixels depend on. Decoders leave such chunks out.
    """
    kept: list[Chunk] = []
    density, frames, room, dropped = None, 1, _MOST_TEXT, False
    for kind, place, size in png_chunks(file):
        if kind not in _READ:
            continue
        if size > room:
            dropped = dropped or kind in TEXT
            continue
        file.seek(place)
        data = file.read(size)
        if file.read(4) != struct.pack(">I", zlib.crc32(kind + data)):
            if kind in TEXT:
                dropped = True
                continue
            raise ImageError(f"{path} is damaged: the checksum of {kind.decode()} does not match")
        if kind == b"pHYs" and size == 9:
            density = _density(data) or density
        elif kind == b"acTL" and size == 8:
            frames = max(1, struct.unpack(">I", data[:4])[0])
        elif kind in TEXT or kind in COLOUR:
            room -= size
            if not data.startswith(_XMP):
                kept.append((kind, data))
    return PngFacts(tuple(kept), density, frames, dropped)


def _density(data: bytes) -> tuple[float, float] | None:
    """Pixels per millimetre, across and down, if a pHYs chunk says so."""
    x, y, unit = struct.unpack(">IIB", data)
    known = unit == 1 and x and y
    return (x / _MILLIMETRES_PER_METRE, y / _MILLIMETRES_PER_METRE) if known else None


def keyword(chunk: Chunk) -> str:
    """The keyword of a text chunk."""
    return chunk[1].split(b"\0", 1)[0].decode("latin-1")


def says_more_than_srgb(chunks: Sequence[Chunk]) -> bool:
    """Whether colour chunks describe anything but sRGB, which is taken for granted elsewhere."""
    found = dict(chunks)
    if found.keys() & {b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi"}:
        return True
    if b"sRGB" in found:
        return False
    gamma, primaries = found.get(b"gAMA"), found.get(b"cHRM")
    if gamma is not None and len(gamma) == 4 and abs(struct.unpack(">I", gamma)[0] - 45455) > 500:
        return True
    srgb = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    if primaries is None or len(primaries) != 32:
        return False
    return any(abs(a - b) > 500 for a, b in zip(struct.unpack(">8I", primaries), srgb, strict=True))


def colours_of_boxes(head: bytes) -> tuple[Chunk, ...]:
    """The colours that an AVIF or HEIC file states by number, as PNG would: a cICP chunk.

    Args:
        head: the first bytes of the file, with its boxes.
    """
    at = head.find(b"colrnclx")
    if at < 0 or len(head) < at + 14:
        return ()
    primaries, transfer = struct.unpack_from(">HH", head, at + 8)
    if (primaries in _LIKE_SRGB_PRIMARIES and transfer in _LIKE_SRGB_TRANSFER) or max(
        primaries, transfer
    ) > 255:
        return ()
    # Pixels were made RGB of full range.
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)


def finish_png(path: Path, kept: Sequence[Chunk], density_known: bool) -> None:
    """Put chunks into a PNG file that was just written, and take an invented density out.

    Raises:
        OSError: if the file cannot be written.
    """
    if not density_known:
        with path.open("rb+") as file:
            for kind, place, size in png_chunks(file):
                if kind == b"pHYs" and size == 9:
                    # A ratio of 1 without a unit: square pixels of unknown size.
                    file.seek(place)
                    file.write(_checked(kind, struct.pack(">IIB", 1, 1, 0))[8:])
                    break
                if kind == b"IDAT":
                    break
    if not kept:
        return
    # Behind the signature and IHDR: colour chunks have to come before the pixels.
    _insert(path, 33, b"".join(_checked(kind, data) for kind, data in kept))


def _checked(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dataclass(frozen=True)
class JpegFacts:
    """What a JPEG file says.

    Attributes:
        density: pixels per millimetre of its JFIF header; None if not said there.
        pictures: how many pictures a multi-picture file lists; 1 for others.
        comments: whether there are comments.
    """

    density: tuple[float, float] | None
    pictures: int
    comments: bool


def jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and the first bytes of the data of each segment before the pixels."""
    file.seek(2)
    for _ in range(_MOST_SEGMENTS):
        head = file.read(4)
        while head[:2] == b"\xff\xff":  # fill bytes
            head = head[1:] + file.read(1)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            return
        size = max(2, struct.unpack(">H", head[2:])[0])
        place = file.tell()
        yield head[1], file.read(min(size - 2, 1 << 10))
        file.seek(place + size - 2)


def jpeg_facts(file: BinaryIO) -> JpegFacts:
    """Read the segments that tell something; damage in them is left to the decoder to find."""
    density, pictures, comments = None, 1, False
    for marker, data in jpeg_segments(file):
        if marker == 0xE0 and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, x, y = struct.unpack(">BHH", data[7:12])
            if unit in (1, 2) and x and y:
                millimetres = 25.4 if unit == 1 else 10.0
                density = (x / millimetres, y / millimetres)
        elif marker == 0xE2 and data.startswith(b"MPF\0"):
            pictures = _listed(data[4:])
        elif marker == 0xFE:
            comments = True
    return JpegFacts(density, pictures, comments)


def _listed(data: bytes) -> int:
    """How many pictures an index of the Multi-Picture Format (CIPA DC-007) lists."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 10:
        return 1
    start = struct.unpack(order + "I", data[4:8])[0]
    if start + 2 > len(data):
        return 1
    count = struct.unpack_from(order + "H", data, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHII", data, at)
        if tag == 0xB001:
            return max(1, int(value))
    return 1


def finish_jpeg(path: Path, density: tuple[float, float] | None) -> None:
    """State the density of a JPEG file that was just written, or take an invented one out.

    libvips writes a JFIF header beside EXIF only.

    Args:
        path: the file.
        density: pixels per millimetre, horizontally and vertically; None if not known.

    Raises:
        OSError: if the file cannot be written.
    """
    stated = _JFIF_UNKNOWN
    if density is not None:
        across, down = (round(value * 25.4) for value in density)
        if not (0 < across < 1 << 16 and 0 < down < 1 << 16):
            return
        stated = struct.pack(">BHH", 1, across, down)
    with path.open("rb+") as file:
        head = file.read(20)
        if head[2:4] == b"\xff\xe0" and head[6:11] == b"JFIF\0":
            file.seek(13)
            file.write(stated)
            return
    if density is not None:
        segment = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0\1\1" + stated + b"\0\0"
        _insert(path, 2, segment)


def _insert(path: Path, place: int, data: bytes) -> None:
    """Put bytes into a file, by way of a copy beside it."""
    new = path.with_name(f"{path.name.removesuffix('.tmp')}.new.tmp")
    try:
        with path.open("rb") as source, new.open("xb") as target:
            target.write(source.read(place))
            target.write(data)
            shutil.copyfileobj(source, target, 1 << 20)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
