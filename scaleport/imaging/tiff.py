"""What the directories of a TIFF say: what its channels mean, and whether it is a raw file.

libvips hands out pixels and not the meaning of a fourth channel. Directories are read here entry
by entry, of bounded size, classic TIFF and BigTIFF, as their specification (TIFF 6.0) has them.

tifffile, which writes our temporary files, is not used for this. Of a damaged tag, whose values lie
beyond the end of the file, it logs an error and goes on with the default: three samples of 8 bits
become one bit. Here such a file is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from scaleport.errors import ImageError

SUBFILE, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 258, 259, 262, 266
WIDTH, HEIGHT = 256, 257
SAMPLES, RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = 277, 282, 283, 296
STRIPS, STRIP_BYTES, TILES, TILE_BYTES = 273, 279, 324, 325
SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, DNG_VERSION = 330, 338, 339, 50706

_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES_BIG: Final = {**_SIZES, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES: Final = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_CODES_REAL: Final = {5: "II", 10: "ii"}
_MOST_ENTRIES: Final = 4096
_MOST_BYTES: Final = 64 << 20
_MOST_DIRECTORIES: Final = 1 << 16

_COLOURS: Final = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32844: 1, 32845: 3}
"""Colour channels of each photometric interpretation."""
_RAW: Final = (32803, 34892)
_DEFLATE: Final = (8, 32946)
_YCBCR: Final = 6
_JPEG: Final = (6, 7)
_REDUCED: Final = 1


@dataclass(frozen=True)
class Entry:
    """One tag: its type, how many values, and the file position of the entry's value field."""

    kind: int
    count: int
    field: int


class Directory:
    """One directory (IFD) of a TIFF file that stays open while it is asked."""

    def __init__(self, reader: Reader, entries: dict[int, Entry]) -> None:
        self._reader, self.entries = reader, entries

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Integer values of a tag; empty if it is not there or not of integers."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _CODES:
            return ()
        data = self._reader.data(entry)
        return struct.unpack(f"{self._reader.order}{entry.count}{_CODES[entry.kind]}", data)

    def number(self, tag: int, default: int) -> int:
        """The first of them."""
        found = self.numbers(tag)
        return found[0] if found else default

    def ratio(self, tag: int) -> float | None:
        """The first rational value of a tag."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _CODES_REAL or not entry.count:
            return None
        data = self._reader.data(entry)[:8]
        above, below = struct.unpack(f"{self._reader.order}{_CODES_REAL[entry.kind]}", data)
        return above / below if below else None


class Reader:
    """The directories of an open TIFF file.

    Raises:
        ValueError: here and in all methods, if the file is cut off or contradicts itself.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        head = file.read(16)
        self.order = {b"II": "<", b"MM": ">"}[head[:2]]
        self.big = self._unpack("H", head[2:4]) == 43
        self._sizes = _SIZES_BIG if self.big else _SIZES
        self._first = self._unpack("Q", head[8:16]) if self.big else self._unpack("I", head[4:8])

    def directories(self) -> Iterator[Directory]:
        """All directories of the chain, in order."""
        place, seen = self._first, set[int]()
        while place and place not in seen and len(seen) < _MOST_DIRECTORIES:
            seen.add(place)
            directory, place = self.directory(place)
            yield directory

    def directory(self, place: int) -> tuple[Directory, int]:
        """The directory at a place, and the place of the next one, 0 for none."""
        count_code, place_code = ("Q", "Q") if self.big else ("H", "I")
        width, inline = (20, 8) if self.big else (12, 4)
        count = self._at(place, count_code)
        start = place + struct.calcsize(count_code)
        if count > _MOST_ENTRIES:
            raise ValueError("a directory of too many entries")
        rows = self.bytes_at(start, count * width)
        entries = {}
        for number in range(count):
            at = number * width
            tag, kind, values = struct.unpack_from(f"{self.order}HH{place_code}", rows, at)
            entries[tag] = Entry(kind, values, start + at + width - inline)
        return Directory(self, entries), self._at(start + count * width, place_code)

    def data(self, entry: Entry) -> bytes:
        """The bytes of an entry's values."""
        size = self._size(entry)
        if size > _MOST_BYTES:
            raise ValueError("a tag that is too large")
        return self.bytes_at(self.place(entry), size)

    def place(self, entry: Entry) -> int:
        """Where the values lie in the file."""
        inline = self._size(entry) <= (8 if self.big else 4)
        return entry.field if inline else self._at(entry.field, "Q" if self.big else "I")

    def _size(self, entry: Entry) -> int:
        return self._sizes.get(entry.kind, 0) * entry.count

    def bytes_at(self, place: int, size: int) -> bytes:
        """Bytes of the file."""
        self._file.seek(place)
        data = self._file.read(size)
        if len(data) != size:
            raise ValueError("the file is cut off")
        return data

    def _at(self, place: int, code: str) -> int:
        return self._unpack(code, self.bytes_at(place, struct.calcsize(code)))

    def _unpack(self, code: str, data: bytes) -> int:
        if len(data) != struct.calcsize(code):
            raise ValueError("the file is cut off")
        return int(struct.unpack(self.order + code, data)[0])


@dataclass(frozen=True)
class TiffFacts:
    """What must be known of a TIFF besides its pixels.

    Attributes:
        page: the first page that is not a reduced version of another.
        pages: pages that are no reduced versions.
        width: columns that the page declares.
        height: rows that it declares.
        photometric: how channels become colours, as TIFF numbers it.
        alpha: whether the channel behind the colours is alpha.
        density: pixels per millimetre, horizontally and vertically; None if not said.
        deflate: whether strips or tiles are compressed with zlib, which has checksums.
    """

    page: int
    pages: int
    width: int
    height: int
    photometric: int
    alpha: bool
    density: tuple[float, float] | None
    deflate: bool


def read_facts(path: Path, file: BinaryIO) -> TiffFacts:
    """Read what the directories say.

    Raises:
        ImageError: if it is a camera's raw file, has channels of unknown meaning or bits that are
            not read, or its directories are damaged.
    """
    try:
        reader = Reader(file)
        directories = list(reader.directories())
        for directory in directories:
            for place in directory.numbers(SUB_IFDS)[:16]:
                _refuse_raw(path, reader.directory(place)[0])
            _refuse_raw(path, directory)
        whole = [
            number
            for number, directory in enumerate(directories)
            if not directory.number(SUBFILE, 0) & _REDUCED
        ]
        if not whole and directories and SUB_IFDS in directories[0].entries:
            raise ImageError(
                f"{path} holds only a preview first, and the picture in an inner directory; "
                "save the picture itself as a plain TIFF or PNG first"
            )
        page = whole[0] if whole else 0
        found = directories[page]
        return TiffFacts(
            page,
            len(whole) or len(directories),
            found.number(WIDTH, 0),
            found.number(HEIGHT, 0),
            found.number(PHOTOMETRIC, 1),
            _has_alpha(path, found),
            _density(found),
            found.number(COMPRESSION, 1) in _DEFLATE and found.number(FILL_ORDER, 1) == 1,
        )
    except ImageError:
        raise
    except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        raise ImageError(f"{path} is damaged: its TIFF directory cannot be read") from error


def _refuse_raw(path: Path, directory: Directory) -> None:
    raw = directory.number(PHOTOMETRIC, 0) in _RAW or DNG_VERSION in directory.entries
    if raw:
        raise ImageError(
            f"{path} is a raw camera file, which has to be developed: export it as TIFF or PNG "
            "first"
        )


def _has_alpha(path: Path, directory: Directory) -> bool:
    """Whether there is alpha; every channel must be a colour or alpha."""
    photometric = directory.number(PHOTOMETRIC, 1)
    bits = directory.number(BITS, 1)
    if bits not in (1, 2, 4, 8, 16, 32, 64) or (photometric in (8, 9, 10) and bits == 8):
        colour = "Lab " if photometric in (8, 9, 10) else ""
        raise ImageError(
            f"{path} is a TIFF of {bits} bits per {colour}channel, which is not supported; save "
            "it with 8 or 16 bits of gray or RGB"
        )
    colours = _COLOURS.get(photometric)
    if photometric == _YCBCR and directory.number(COMPRESSION, 1) not in _JPEG:
        # libvips hands such pixels out as if they were RGB.
        raise ImageError(
            f"{path} is a TIFF of YCbCr that is not compressed as JPEG, which is not supported; "
            "save it as gray or RGB"
        )
    if colours is None:
        raise ImageError(
            f"{path} is a TIFF of an unsupported colour space (photometric {photometric}); save "
            "it as gray or RGB"
        )
    samples, extra = directory.number(SAMPLES, 1), directory.numbers(EXTRA_SAMPLES)
    further = samples - colours
    if further <= 0:
        return False
    if further == 1 and len(extra) == 1 and extra[0] in (1, 2):
        return True
    said = f"ExtraSamples {', '.join(map(str, extra))}" if extra else "no ExtraSamples"
    raise ImageError(
        f"{path} has {samples} channels, {further} of them neither colour nor alpha ({said}); "
        f"save it without them, or mark the {colours + 1}th as alpha (ExtraSamples 2) if it is"
    )


def _density(directory: Directory) -> tuple[float, float] | None:
    unit = directory.number(RESOLUTION_UNIT, 2)
    x, y = directory.ratio(RESOLUTION_X), directory.ratio(RESOLUTION_Y)
    if unit not in (2, 3) or not x or not y or x <= 0 or y <= 0:
        return None
    millimetres = 25.4 if unit == 2 else 10.0
    return x / millimetres, y / millimetres


def check_deflate(place: Path, path: Path, page: int) -> None:
    """Compare the checksums of a page's compressed strips or tiles, which libtiff may not.

    It stops at the size that it expects: damage that makes a strip longer stays unseen.

    Args:
        place: where the file is read from.
        path: what it is called in errors.
        page: which page is read.

    Raises:
        ImageError: if one is damaged.
    """
    try:
        with place.open("rb") as file:
            reader = Reader(file)
            directory = next(islice(reader.directories(), page, None))
            places = directory.numbers(STRIPS) or directory.numbers(TILES)
            counts = directory.numbers(STRIP_BYTES) or directory.numbers(TILE_BYTES)
            for start, count in zip(places, counts, strict=True):
                if count and not _sound(reader, start, count):
                    raise ImageError(f"{path} is damaged: a strip is cut off before its checksum")
    except ImageError:
        raise
    except zlib.error as error:
        raise ImageError(f"{path} is damaged: a strip does not match its checksum") from error
    except (OSError, ValueError, KeyError, OverflowError, StopIteration) as error:
        raise ImageError(f"{path} is damaged: {error}") from error


def _sound(reader: Reader, place: int, count: int) -> bool:
    """Whether a zlib stream ends with the right checksum; decoded piece by piece."""
    stream, at = zlib.decompressobj(), 0
    while at < count and not stream.eof:
        piece = reader.bytes_at(place + at, min(count - at, 1 << 16))
        at += len(piece)
        stream.decompress(piece, 1 << 22)
        while stream.unconsumed_tail and not stream.eof:
            stream.decompress(stream.unconsumed_tail, 1 << 22)
    return stream.eof


def drop_density(path: Path) -> None:
    """Have a TIFF file that was just written say that its density is not known.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if it is no TIFF.
    """
    with path.open("rb+") as file:
        reader = Reader(file)
        directory = next(reader.directories())
        changed = []
        for tag in (RESOLUTION_X, RESOLUTION_Y):
            entry = directory.entries.get(tag)
            if entry is not None:
                changed.append((reader.place(entry), struct.pack(f"{reader.order}II", 1, 1)))
        unit = directory.entries.get(RESOLUTION_UNIT)
        if unit is not None:
            changed.append((unit.field, struct.pack(f"{reader.order}H", 1)))
        for place, data in changed:
            file.seek(place)
            file.write(data)
