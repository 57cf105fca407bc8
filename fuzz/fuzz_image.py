"""Image files: the input is a file, whatever it claims to be.

Pictures that declare more than 4 megapixels are opened but not decoded: they are allowed, and
would only make the run slow.
"""

from __future__ import annotations

import os

os.environ.setdefault("VIPS_WARNING", "0")

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.imaging.convert import from_planes, to_planes
    from scaleport.imaging.reading import open_picture

from harness import run, scratch

FILE = scratch() / "picture"
MOST = 4 << 20


def target(data: bytes) -> None:
    """Open, look at the metadata, decode, and go to planes and back."""
    FILE.write_bytes(data)
    picture = open_picture(FILE)
    icc = picture.metadata.icc
    if icc is not None and not isinstance(icc, bytes):
        raise AssertionError("a profile that is no bytes")
    height, width = picture.shape
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


if __name__ == "__main__":
    run(target)
