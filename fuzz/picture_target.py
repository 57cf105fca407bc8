"""What the targets of image files share: open, look at the metadata, decode, there and back.

Pictures that declare more than 4 megapixels are opened but not decoded: they are allowed, and
would only make the run slow.
"""

from __future__ import annotations

import os

os.environ.setdefault("VIPS_WARNING", "0")

import logging

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.imaging.convert import from_planes, to_planes
    from scaleport.imaging.metadata import left_out
    from scaleport.imaging.reading import open_picture

from harness import Target, scratch

FILE = scratch() / "picture"
MOST = 4 << 20

logging.getLogger("pyvips").setLevel(logging.ERROR)


def decode(data: bytes) -> None:
    """Open, look at the metadata, decode, and go to planes and back."""
    FILE.write_bytes(data)
    picture = open_picture(FILE)
    icc = picture.metadata.icc
    if icc is not None and not isinstance(icc, bytes):
        raise AssertionError("a profile that is no bytes")
    height, width = picture.shape
    for kind in ("PNG", "JPEG", "TIFF", "WebP"):
        left_out(picture.metadata, kind, picture.layout, (2 * height, 2 * width))
    if height * width > MOST:
        return
    pixels = picture.read(0, 0, min(height, 64), min(width, 64))
    planes = to_planes(pixels)
    if pixels.dtype.kind == "f":
        return
    if from_planes(planes, picture.layout).tobytes() != pixels.tobytes():
        raise AssertionError("pixels change on the way to planes and back")
    picture.read()
    picture.uniform_alpha()


def of_kind(*beginnings: tuple[int, bytes]) -> Target:
    """The same for one kind of file: what tells the kind is put into every input.

    Args:
        beginnings: place and bytes; one of them is chosen by an input's last byte.
    """

    def target(data: bytes) -> None:
        if data:
            place, magic = beginnings[data[-1] % len(beginnings)]
            data = data[:place].ljust(place, b"\0") + magic + data[place + len(magic) :]
        decode(data)

    return target
