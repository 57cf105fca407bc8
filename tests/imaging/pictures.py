"""Image files of every kind that is read, made here byte by byte or by Pillow, never by Scaleport.

A sample knows which pixels are right, upright, and which of its bytes a checksum covers.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import PIL.Image
from hypothesis import strategies as st

SHAPES = {1: (), 2: (2,), 3: (3,), 4: (4,)}
DENSITIES = (None, (72.0, 72.0), (300.0, 300.0), (600.0, 300.0), (96.0, 96.0))
"""Dots per inch, across and down."""


@dataclass(frozen=True)
class Sample:
    """One file.

    ``pixels`` are right within ``tolerance``. ``sealed`` are half-open ranges of bytes in which any
    change has to be noticed. ``density`` is in dots per inch.
    """

    name: str
    data: bytes
    pixels: np.ndarray
    density: tuple[float, float] | None = None
    sealed: tuple[tuple[int, int], ...] = ()
    tolerance: int = 0


def noise(height: int, width: int, channels: int, dtype: type, seed: int) -> np.ndarray:
    """A smooth ramp with some noise on it: it compresses a little, as photographs do."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.1, 0.9, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    values = np.clip(ramp + rng.normal(0, 0.05, (height, width, channels)), 0, 1)
    if dtype == np.float32:
        pixels = values.astype(np.float32)
    else:
        pixels = np.rint(values * np.iinfo(dtype).max).astype(dtype)
    return pixels.reshape(height, width, *SHAPES[channels])


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores an upright picture under an EXIF orientation."""
    turns = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(turns[orientation](upright))


def exif(orientation: int) -> bytes:
    """An EXIF block (TIFF header and one tag)."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(
    pixels: np.ndarray, *extra: bytes, depth: int = 0, colour: int = -1, tail: bytes = b""
) -> bytes:
    """A PNG of stored pixels; ``depth`` below 8 packs gray values that are below ``2**depth``."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if colour < 0:
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    depth = depth or 8 * pixels.dtype.itemsize
    if depth < 8:
        shifts = np.arange(depth - 1, -1, -1)
        bits = (pixels[..., None] >> shifts & 1).reshape(height, -1).astype(np.uint8)
        rows = np.packbits(bits, axis=1)
    else:
        rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(raw, 6))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + body + tail + end


def phys(density: tuple[float, float]) -> bytes:
    """A pHYs chunk of dots per inch."""
    return chunk(b"pHYs", struct.pack(">IIB", *(round(d / 0.0254) for d in density), 1))


def tiff_file(
    pixels: np.ndarray,
    orientation: int = 1,
    density: tuple[float, float] | None = None,
    deflate: bool = False,
    rows: int = 0,
    first: bool = False,
    big: bool = False,
    extra: tuple[int, ...] | None = None,
    tags: dict[int, tuple[str, list]] | None = None,
) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """A TIFF of stored pixels and where its strips lie; ``first`` puts the directory first.

    ``tags`` adds or replaces tags: number to (``H``, ``I``, ``B`` or ``R`` for rationals, values).
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    order = ">" if big else "<"
    ordered = pixels.astype(pixels.dtype.newbyteorder(order)).reshape(height, -1)
    rows = rows or height
    strips = [ordered[at : at + rows].tobytes() for at in range(0, height, rows)]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    alpha = (2,) if channels in (2, 4) else ()
    alpha = alpha if extra is None else extra
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries: dict[int, tuple[str, list]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * pixels.dtype.itemsize] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [2 if channels >= 3 else 1]),
        273: ("I", [0] * len(strips)),
        274: ("H", [orientation]),
        277: ("H", [channels]),
        278: ("I", [rows]),
        279: ("I", [len(strip) for strip in strips]),
        339: ("H", [form] * channels),
    }
    if alpha:
        entries[338] = ("H", list(alpha))
    if density is not None:
        entries[282] = ("R", [round(density[0] * 100), 100])
        entries[283] = ("R", [round(density[1] * 100), 100])
        entries[296] = ("H", [2])
    entries.update(tags or {})
    codes = {"B": (1, 1), "H": (3, 2), "I": (4, 4), "R": (5, 4)}
    size = 2 + 12 * len(entries) + 4
    lengths = [codes[kind][1] * len(values) for kind, values in entries.values()]
    size += sum(length + length % 2 for length in lengths if length > 4)
    start = 8 + size if first else 8
    places = [start + sum(map(len, strips[:i])) for i in range(len(strips))]
    if entries[273][1] == [0] * len(strips):
        entries[273] = ("I", places)
    data = b"".join(strips)
    data += b"\0" * (len(data) % 2)
    at = 8 if first else 8 + len(data)
    behind_at, table, behind = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, (kind, values) in sorted(entries.items()):
        code, width_of = codes[kind]
        letter = "I" if kind == "R" else kind
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        count = len(values) // 2 if kind == "R" else len(raw) // width_of
        if len(raw) > 4:
            field = struct.pack(order + "I", behind_at + len(behind))
            behind += raw + b"\0" * (len(raw) % 2)
        else:
            field = raw.ljust(4, b"\0")
        table += struct.pack(order + "HHI", tag, code, count) + field
    directory = struct.pack(order + "H", len(entries)) + table + bytes(4) + behind
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(order + "I", at)
    file = head + (directory + data if first else data + directory)
    ends = [place + len(strip) for place, strip in zip(places, strips, strict=True)]
    return file, tuple(zip(places, ends, strict=True))


def pnm_file(pixels: np.ndarray, largest: int, plain: bool) -> bytes:
    """A PGM or PPM whose values are at most ``largest``."""
    height, width = pixels.shape[:2]
    gray = pixels.ndim == 2
    magic = (b"P2" if gray else b"P3") if plain else (b"P5" if gray else b"P6")
    head = magic + f"\n# made for a test\n{width} {height}\n{largest}\n".encode()
    if plain:
        rows = (" ".join(map(str, row.ravel())) for row in pixels)
        return head + "\n".join(rows).encode() + b"\n"
    return head + pixels.astype(">u2" if largest > 255 else np.uint8).tobytes()


def bmp_file(pixels: np.ndarray, density: tuple[float, float] | None) -> bytes:
    """A BMP of 24 bits, or of 32 with alpha (BITMAPV4HEADER)."""
    height, width, channels = pixels.shape
    order = [2, 1, 0, 3][:channels]
    rows = pixels[::-1, :, order].reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    across, down = (round(d / 0.0254) for d in density or (0, 0))
    alpha = channels == 4
    size = 108 if alpha else 40
    info = struct.pack(
        "<IiiHHIIiiII", size, width, height, 1, 8 * channels, 3 if alpha else 0, rows.nbytes,
        across, down, 0, 0,
    )  # fmt: skip
    if alpha:
        info += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    place = 14 + size
    return struct.pack("<2sIHHI", b"BM", place + rows.nbytes, 0, 0, place) + info + rows.tobytes()


def by_pillow(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """A file that Pillow writes."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def of_pillow(data: bytes) -> np.ndarray:
    """What Pillow decodes, as it is stored."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture of stored pixels."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return stored(pixels, inverse)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Kinds x depths x alpha x orientation x density."""
    make = draw(st.sampled_from(MAKERS))
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    orientation = draw(st.integers(1, 8))
    density = draw(st.sampled_from(DENSITIES))
    seed = draw(st.integers(0, 2**16))
    return make(draw, height, width, orientation, density, seed)


def _swapped(density: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return density[::-1] if density and orientation >= 5 else density


def _png(draw, height, width, orientation, density, seed) -> Sample:
    extra = [chunk(b"eXIf", exif(orientation))] if orientation > 1 else []
    extra += [phys(density)] if density else []
    form = draw(st.sampled_from(["1", "2", "4", "8", "16", "palette"]))
    if form in ("1", "2", "4"):
        depth = int(form)
        levels = np.random.default_rng(seed).integers(0, 2**depth, (height, width), np.uint8)
        data = png_file(stored(levels, orientation), *extra, depth=depth)
        pixels = levels * np.uint8(255 // (2**depth - 1))
    elif form == "palette":
        rng = np.random.default_rng(seed)
        palette = rng.integers(0, 256, (256, 3), np.uint8)
        indices = rng.integers(0, 256, (height, width), np.uint8)
        pixels = palette[indices]
        extra.append(chunk(b"PLTE", palette.tobytes()))
        if draw(st.booleans()):
            alpha = rng.integers(0, 256, 256, np.uint8)
            extra.append(chunk(b"tRNS", alpha.tobytes()))
            pixels = np.dstack([pixels, alpha[indices]])
        data = png_file(stored(indices, orientation), *extra, colour=3)
    else:
        channels = draw(st.integers(1, 4))
        pixels = noise(height, width, channels, {"8": np.uint8, "16": np.uint16}[form], seed)
        data = png_file(stored(pixels, orientation), *extra)
    name = f"{form}-bit PNG"
    return Sample(name, data, pixels, _swapped(density, orientation), ((8, len(data) - 12),))


def _tiff(draw, height, width, orientation, density, seed) -> Sample:
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    pixels = noise(height, width, draw(st.integers(1, 4)), dtype, seed)
    deflate = draw(st.booleans())
    data, strips = tiff_file(
        stored(pixels, orientation), orientation, density, deflate,
        draw(st.integers(0, 9)), draw(st.booleans()), draw(st.booleans()),
    )  # fmt: skip
    sealed = strips if deflate else ()
    name = f"{np.dtype(dtype)} TIFF"
    return Sample(name, data, pixels, _swapped(density, orientation), sealed)


def _pnm(draw, height, width, orientation, density, seed) -> Sample:
    largest = draw(st.sampled_from([1, 15, 100, 255, 256, 1023, 4095, 65535]))
    channels = draw(st.sampled_from([(), (3,)]))
    rng = np.random.default_rng(seed)
    values = rng.integers(0, largest, (height, width, *channels), np.int64, endpoint=True)
    top, dtype = (255, np.uint8) if largest < 256 else (65535, np.uint16)
    # Half is rounded up.
    pixels = np.floor(values * top / largest + 0.5).astype(dtype)
    return Sample(f"PNM of {largest}", pnm_file(values, largest, draw(st.booleans())), pixels)


def _pbm(draw, height, width, orientation, density, seed) -> Sample:
    bits = np.random.default_rng(seed).integers(0, 2, (height, width), np.uint8)
    size = f"{width} {height}\n".encode()
    if draw(st.booleans()):
        data = b"P1\n" + size + b"\n".join(b"".join(b"%d" % b for b in row) for row in bits)
    else:
        data = b"P4\n" + size + np.packbits(bits, axis=1).tobytes()
    return Sample("PBM", data, (1 - bits) * np.uint8(255))


def _pam(draw, height, width, orientation, density, seed) -> Sample:
    channels = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    kind = ["GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA"][channels - 1]
    pixels = noise(height, width, channels, dtype, seed)
    head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\n"
    head += f"MAXVAL {np.iinfo(dtype).max}\nTUPLTYPE {kind}\nENDHDR\n"
    ordered = pixels.astype(np.dtype(dtype).newbyteorder(">"))
    return Sample("PAM", head.encode() + ordered.tobytes(), pixels)


def _pfm(draw, height, width, orientation, density, seed) -> Sample:
    channels = draw(st.sampled_from([1, 3]))
    pixels = noise(height, width, channels, np.float32, seed)
    little = draw(st.booleans())
    head = f"{'PF' if channels == 3 else 'Pf'}\n{width} {height}\n{-1.0 if little else 1.0}\n"
    data = head.encode() + pixels[::-1].astype("<f4" if little else ">f4").tobytes()
    return Sample("PFM", data, pixels)


def _bmp(draw, height, width, orientation, density, seed) -> Sample:
    pixels = noise(height, width, draw(st.sampled_from([3, 4])), np.uint8, seed)
    pixels[0, 0] = 255  # not transparent everywhere
    return Sample("BMP", bmp_file(pixels, density), pixels, density)


def _jpeg(draw, height, width, orientation, density, seed) -> Sample:
    pixels = noise(height, width, draw(st.sampled_from([1, 3])), np.uint8, seed)
    options = {"dpi": density} if density else {}
    data = by_pillow(
        stored(pixels, orientation), "JPEG", quality=90, progressive=draw(st.booleans()),
        exif=b"Exif\0\0" + exif(orientation) if orientation > 1 else b"", **options,
    )  # fmt: skip
    found = turned_back(of_pillow(data), orientation)
    return Sample("JPEG", data, found, _swapped(density, orientation), tolerance=1)


def _webp(draw, height, width, orientation, density, seed) -> Sample:
    pixels = noise(height, width, draw(st.sampled_from([3, 4])), np.uint8, seed)
    lossless = draw(st.booleans())
    pixels[0, 0, -1] = 7  # with alpha, not opaque everywhere: else it would not be stored
    data = by_pillow(
        stored(pixels, orientation), "WEBP", lossless=lossless, exact=True, quality=90,
        exif=b"Exif\0\0" + exif(orientation) if orientation > 1 else b"",
    )  # fmt: skip
    found = pixels if lossless else turned_back(of_pillow(data), orientation)
    return Sample("WebP", data, found, tolerance=0 if lossless else 1)


def _gif(draw, height, width, orientation, density, seed) -> Sample:
    rng = np.random.default_rng(seed)
    image = PIL.Image.fromarray(rng.integers(0, 256, (height, width), np.uint8), "P")
    palette = rng.integers(0, 256, (256, 3), np.uint8)
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False)
    return Sample("GIF", buffer.getvalue(), palette[np.asarray(image)])


def _avif(draw, height, width, orientation, density, seed) -> Sample:
    pixels = noise(height, width, draw(st.sampled_from([3, 4])), np.uint8, seed)
    pixels[0, 0, -1] = 7
    data = by_pillow(
        stored(pixels, orientation), "AVIF", quality=100, subsampling="4:4:4", speed=10,
        exif=b"Exif\0\0" + exif(orientation) if orientation > 1 else b"",
    )  # fmt: skip
    return Sample("AVIF", data, pixels, tolerance=6)


MAKERS = (_png, _tiff, _pnm, _pbm, _pam, _pfm, _bmp, _jpeg, _webp, _gif, _avif)


def heic_file(pixels: np.ndarray) -> bytes:
    """A file that is a HEIC in all but its pixels: AVIF's boxes with HEVC's names and header."""
    data = by_pillow(pixels, "AVIF").replace(b"avif", b"heic").replace(b"av01", b"hvc1")
    old = data.index(b"av1C") - 4
    header = b"\x01\x01\x60\0\0\0\x90\0\0\0\0\0\x3c\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f\0"
    box = struct.pack(">I", 8 + len(header)) + b"hvcC" + header
    size = struct.unpack(">I", data[old : old + 4])[0]
    grown = len(box) - size
    data = bytearray(data[:old] + box + data[old + size :])
    for outer in (b"meta", b"iprp", b"ipco"):
        at = data.index(outer) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + grown)
    # Where the coded picture lies has moved, too.
    place, length = data.index(b"mdat") + 4, data.index(b"iloc")
    start = struct.pack(">I", place - grown)
    at = data.index(start, length)
    data[at : at + 4] = struct.pack(">I", place)
    return bytes(data)
