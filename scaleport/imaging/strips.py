"""A TIFF for pixels that wait on disk until a picture is complete.

libvips maps a raw file into memory as a whole, where it counts as memory of the process; a TIFF it
reads strip by strip. The pixels are not compressed, so that bands are appended as they come.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

from scaleport.imaging.convert import Layout

_STRIP: Final = 1 << 20
"""Bytes that are read at once, about."""


def create(path: Path, height: int, width: int, layout: Layout) -> BinaryIO:
    """Make the file; the pixels, little-endian, are written to it from where it stands.

    Raises:
        OSError: if it cannot be made.
    """
    import tifffile

    bands = layout.channels or 1
    row = width * bands * layout.dtype.itemsize
    with tifffile.TiffWriter(path, bigtiff=True, byteorder="<") as tiff:
        place = tiff.write(
            shape=(height, width, bands) if bands > 1 else (height, width),
            dtype=layout.dtype,
            photometric="rgb" if bands > 2 else "minisblack",
            planarconfig="contig" if bands > 1 else None,
            extrasamples=("unassalpha",) if layout.has_alpha else None,
            rowsperstrip=max(1, min(height, _STRIP // row)),
            metadata=None,
            returnoffset=True,
        )
    file = path.open("r+b")
    file.seek(place[0])
    return file
