"""Pictures that are none, or much larger than they look. A good bundle lies beside them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from makers import attack, copied


def _picture(home: Path, good: Path, data: bytes) -> None:
    copied(home, good)
    (home / "evil.png").write_bytes(data)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


@attack
def png_of_a_gigapixel(home: Path, good: Path) -> None:
    """A few bytes that declare four gigapixels."""
    _picture(home, good, _png(65535, 65535, b""))


@attack
def png_of_two_to_the_31(home: Path, good: Path) -> None:
    """A width that is negative where integers are small."""
    _picture(home, good, _png(0x7FFFFFFF, 0x7FFFFFFF, b""))


@attack
def png_without_pixels(home: Path, good: Path) -> None:
    """Nothing wide, nothing high."""
    _picture(home, good, _png(0, 0, b""))


@attack
def png_cut(home: Path, good: Path) -> None:
    """Less data than declared."""
    _picture(home, good, _png(64, 64, b"\0" * 100))


@attack
def png_wrong_checksum(home: Path, good: Path) -> None:
    """A header that was changed."""
    data = bytearray(_png(4, 4, b"\0" * 52))
    data[18] ^= 1
    _picture(home, good, bytes(data))


@attack
def bmp_huge(home: Path, good: Path) -> None:
    """A bitmap that declares more than memory."""
    header = struct.pack("<IiiHHIIiiII", 40, 1 << 30, 1 << 30, 1, 24, 0, 0, 0, 0, 0, 0)
    _picture(home, good, b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)


@attack
def ppm_huge(home: Path, good: Path) -> None:
    """A text header that declares more than memory."""
    _picture(home, good, b"P6 999999999 999999999 255\n")


@attack
def ppm_digits(home: Path, good: Path) -> None:
    """A width of ten thousand digits."""
    _picture(home, good, b"P6 " + b"9" * 10_000 + b" 1 255\n")


@attack
def tiff_loop(home: Path, good: Path) -> None:
    """A directory of pages that follows itself."""
    _picture(home, good, b"II*\0\x08\0\0\0" + struct.pack("<HHHIIi", 1, 256, 4, 1, 9, 8))


@attack
def svg_with_a_file(home: Path, good: Path) -> None:
    """A drawing that shows a file of the machine."""
    _picture(
        home,
        good,
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        b'width="9" height="9"><image xlink:href="file:///etc/passwd" width="9" height="9"/></svg>',
    )


@attack
def vips_with_a_file(home: Path, good: Path) -> None:
    """The library's own format, whose pixels are taken from memory as they are."""
    _picture(home, good, b"\x08\xf2\xa6\xb6" + struct.pack("<15I", *([1 << 20] * 15)))


@attack
def archive_named_png(home: Path, good: Path) -> None:
    """An archive."""
    _picture(home, good, b"")
    with zipfile.ZipFile(home / "evil.png", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"0" * (10 << 20))


@attack
def script_named_png(home: Path, good: Path) -> None:
    """A program for another interpreter."""
    _picture(home, good, b"%!PS\n(/etc/passwd) (r) file\n")
