"""The smallest TIFF there is, for pixels that wait on disk until a picture is complete.

libvips maps a raw file into memory as a whole, where it counts as memory of the process; a TIFF it
reads strip by strip. The pixels lie between a header of 16 bytes and the directory, uncompressed,
so that bands are appended as they come. BigTIFF, as its specification (libtiff) has it.
"""

from __future__ import annotations

import struct
from typing import Final

from scaleport.imaging.convert import Layout

_STRIP: Final = 1 << 20
"""Bytes that are read at once, about."""
_SHORT, _LONG, _LONG8 = 3, 4, 16


def header(height: int, width: int, layout: Layout) -> bytes:
    """What goes before the pixels."""
    row = width * (layout.channels or 1) * layout.dtype.itemsize
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16 + height * row + _padding(height * row))


def directory(height: int, width: int, layout: Layout) -> bytes:
    """What goes after the pixels: padding, the directory, and where the strips lie."""
    bands, size = layout.channels or 1, layout.dtype.itemsize
    row = width * bands * size
    rows = max(1, min(height, _STRIP // row))
    starts = range(0, height, rows)
    offsets = [16 + start * row for start in starts]
    counts = [min(rows, height - start) * row for start in starts]
    entries = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * size] * bands),
        (259, _SHORT, [1]),
        (262, _SHORT, [2 if bands > 2 else 1]),
        (273, _LONG8, offsets),
        (277, _SHORT, [bands]),
        (278, _LONG, [rows]),
        (279, _LONG8, counts),
        (284, _SHORT, [1]),
        *([(338, _SHORT, [2])] if layout.has_alpha else []),
        (339, _SHORT, [3 if layout.dtype.kind == "f" else 1] * bands),
    ]
    pad = _padding(height * row)
    end = 16 + height * row + pad + 8 + 20 * len(entries) + 8
    table, behind = b"", b""
    for tag, kind, values in entries:
        code = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}[kind]
        data = struct.pack(f"<{len(values)}{code}", *values)
        if len(data) > 8:
            place = struct.pack("<Q", end + len(behind))
            behind += data
        else:
            place = data.ljust(8, b"\0")
        table += struct.pack("<HHQ", tag, kind, len(values)) + place
    return b"\0" * pad + struct.pack("<Q", len(entries)) + table + bytes(8) + behind


def _padding(count: int) -> int:
    return -count % 8
