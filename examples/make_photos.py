"""Make the sample photographs from those that scikit-image carries.

``python examples/make_photos.py`` rewrites ``cat.png``, which is clean, and ``astronaut.jpg``,
which was compressed as pictures on the web are. Both are reduced to half with antialiasing.
``examples/README.md`` names the photographers and the licences.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from skimage import data

HERE = Path(__file__).parent
JPEG_QUALITY = 60


def halved(photograph: Image.Image) -> Image.Image:
    """Half of the width and of the height."""
    width, height = photograph.size
    return photograph.resize((width // 2, height // 2), Image.Resampling.LANCZOS)


def main() -> None:
    """Write both."""
    halved(Image.fromarray(data.chelsea())).save(HERE / "cat.png", optimize=True)
    astronaut = halved(Image.fromarray(data.astronaut()))
    astronaut.save(HERE / "astronaut.jpg", quality=JPEG_QUALITY, optimize=True)


if __name__ == "__main__":
    main()
