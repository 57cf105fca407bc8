"""Netpbm files (PBM, PGM, PPM, PAM) and PFM, decoded with all their bits.

The formats are those of netpbm.sourceforge.net and, for PFM, of pauldebevec.com. Libraries at hand
cut 16-bit colour to 8 bits, take 10-bit gray for 8 bits, or read no colours of PFM.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scaleport.imaging.convert import Pixels

_CHANNELS: Final = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3}
_TUPLES: Final = {
    b"BLACKANDWHITE": 1,
    b"BLACKANDWHITE_ALPHA": 2,
    b"GRAYSCALE": 1,
    b"GRAYSCALE_ALPHA": 2,
    b"RGB": 3,
    b"RGB_ALPHA": 4,
}
_FIELD: Final = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]+)")
_LONGEST_HEADER: Final = 1 << 16


@dataclass(frozen=True)
class Header:
    """What stands before the pixels; ``start`` is where they begin in the file."""

    magic: bytes
    width: int
    height: int
    channels: int
    largest: float
    start: int

    @property
    def plain(self) -> bool:
        """Whether pixels are written as decimal numbers."""
        return self.magic in (b"P1", b"P2", b"P3")


def read_header(data: bytes) -> Header:
    """Read the header of a file's first bytes.

    Raises:
        ValueError: if it is damaged.
    """
    head = data[:_LONGEST_HEADER]
    magic = head[:2]
    if magic == b"P7":
        return _arbitrary(head)
    fields, at = [], 2
    for _ in range(2 if magic in (b"P1", b"P4") else 3):
        match = _FIELD.match(head, at)
        if match is None:
            raise ValueError("the header is cut off")
        fields.append(match[1])
        at = match.end()
    if not head[at : at + 1].isspace():
        raise ValueError("the header is cut off")
    if magic in (b"PF", b"Pf"):
        scale = float(fields[2])
        if not math.isfinite(scale) or scale == 0:
            raise ValueError("the scale in the header is not a number other than 0")
        return _checked(magic, fields, 3 if magic == b"PF" else 1, scale, at + 1)
    largest = int(fields[2]) if len(fields) == 3 else 1
    return _checked(magic, fields, _CHANNELS[magic], largest, at + 1)


def _arbitrary(head: bytes) -> Header:
    """PAM: a line each for what the pixels are."""
    found: dict[bytes, bytes] = {}
    at = head.find(b"\n") + 1
    while at:
        end = head.find(b"\n", at)
        if end < 0:
            break
        words = head[at:end].split(maxsplit=1)
        at = end + 1
        if words == [b"ENDHDR"]:
            fields = [found.get(b"WIDTH", b""), found.get(b"HEIGHT", b"")]
            depth = int(found.get(b"DEPTH", b"0"))
            wanted = _TUPLES.get(found.get(b"TUPLTYPE", b"").strip())
            if wanted is None and depth in (1, 3) and b"TUPLTYPE" not in found:
                wanted = depth
            if wanted != depth:
                kind = found.get(b"TUPLTYPE", b"").decode(errors="replace")
                raise NotImplementedError(f"channels of the kind {kind!r}, {depth} of them")
            return _checked(b"P7", fields, depth, int(found.get(b"MAXVAL", b"0")), at)
        if len(words) == 2 and not words[0].startswith(b"#"):
            found[words[0]] = words[1]
    raise ValueError("the header is cut off")


def _checked(magic: bytes, size: list[bytes], channels: int, largest: float, start: int) -> Header:
    width, height = int(size[0]), int(size[1])
    if width < 1 or height < 1:
        raise ValueError(f"a size of {width}x{height}")
    if magic not in (b"PF", b"Pf") and not 1 <= largest <= 0xFFFF:
        raise ValueError(f"a largest value of {largest}")
    return Header(magic, width, height, channels, largest, start)


def decode(data: bytes, header: Header) -> tuple[Pixels, bool]:
    """Pixels [H, W] or [H, W, C], and whether further pictures follow.

    Levels are spread over all of 8 bits, or of 16 if there are more than 256; PFM is float32 as it
    is stored, bottom row first, its scale left aside.

    Raises:
        ValueError: if pixels are missing or out of range.
    """
    shape = (header.height, header.width, header.channels)
    count = math.prod(shape)
    if header.magic in (b"PF", b"Pf"):
        order = "<" if header.largest < 0 else ">"
        floats, _ = _binary(data, header.start, count, f"{order}f4")
        return _flat(floats.reshape(shape)[::-1].astype(np.float32)), False
    if header.magic == b"P4":
        row = (header.width + 7) // 8
        packed, end = _binary(data, header.start, row * header.height, "u1")
        bits = np.unpackbits(packed.reshape(header.height, row), axis=1)[:, : header.width]
        return _bilevel(bits), _more(data, end)
    if header.plain:
        return _flat(_plain(data, header, count).reshape(shape)), False
    values, end = _binary(data, header.start, count, "u1" if header.largest < 256 else ">u2")
    return _flat(_spread(values, int(header.largest)).reshape(shape)), _more(data, end)


def _binary(data: bytes, start: int, count: int, kind: str) -> tuple[Pixels, int]:
    end = start + count * np.dtype(kind).itemsize
    if end > len(data):
        raise ValueError(f"it is cut off, {end - len(data)} bytes are missing")
    return np.frombuffer(data, kind, count, start), end


def _more(data: bytes, end: int) -> bool:
    return re.match(rb"P[1-7]\s", data[end : end + 3]) is not None


def _plain(data: bytes, header: Header, count: int) -> Pixels:
    text = re.sub(rb"#[^\r\n]*", b"", data[header.start :])
    if header.magic == b"P1":  # digits need nothing between them
        digits = np.frombuffer(b"".join(text.split())[:count], np.uint8)
        values: Any = digits - np.uint8(48)
        if values.size < count or values.max() > 1:
            raise ValueError("it is cut off, or has digits other than 0 and 1")
        return _bilevel(values)
    words = text.split(maxsplit=count)
    ends = len(words) <= count and not text[-1:].isspace()
    words = words[:count]
    if len(words) < count:
        raise ValueError(f"it is cut off, {count - len(words)} values are missing")
    if any(not word.isdigit() or len(word) > 5 for word in words):
        raise ValueError("a value is not a number from 0 to 65535")
    if ends and 0 < 10 * int(words[-1]) <= header.largest:
        # The last value may have had more digits.
        raise ValueError("it is cut off in its last value, or lacks the end of its last line")
    return _spread(np.array(words).astype(np.int64), int(header.largest))


def _bilevel(bits: Pixels) -> Pixels:
    """White for 0, black for 1."""
    pixels: Pixels = np.where(bits == 0, np.uint8(255), np.uint8(0))
    return pixels


def _spread(values: Pixels, largest: int) -> Pixels:
    """Values from 0 to ``largest`` as all of uint8 or uint16, rounded to the nearest."""
    if int(values.max()) > largest:
        raise ValueError(f"a value of {values.max()} is above the largest, {largest}")
    dtype: np.dtype[Any] = np.dtype(np.uint8 if largest < 256 else np.uint16)
    top = 255 if largest < 256 else 0xFFFF
    if largest == top:
        return values.astype(dtype)
    table = (np.arange(largest + 1, dtype=np.int64) * (2 * top) + largest) // (2 * largest)
    found: Pixels = table.astype(dtype)[values]
    return found


def _flat(pixels: Pixels) -> Pixels:
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
