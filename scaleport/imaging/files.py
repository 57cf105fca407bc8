"""Image files as whole pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scaleport.errors import ImageError
from scaleport.imaging.convert import Pixels, layout_of
from scaleport.imaging.kinds import READABLE
from scaleport.imaging.metadata import Metadata
from scaleport.imaging.reading import open_picture
from scaleport.imaging.writing import WRITABLE, PictureWriter, SaveOptions, check_target

__all__ = ["READABLE", "WRITABLE", "Image", "Metadata", "check_target", "load_image", "save_image"]


@dataclass(frozen=True, eq=False)
class Image:
    """A picture in memory.

    ``pixels`` is uint8, uint16 or float32, [H, W] or [H, W, C]: gray, gray and alpha (2), RGB (3),
    RGB and alpha (4); upright, as the orientation in the file says. ``notes`` are sentences about
    contents of the file that the pixels do not show.
    """

    pixels: Pixels
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()


def load_image(path: Path | str) -> Image:
    """Read an image file, see :func:`scaleport.imaging.reading.open_picture`.

    Raises:
        ImageError: if the file is missing, empty, damaged or of an unsupported kind.
        OutOfMemoryError: if the picture does not fit into memory.
    """
    picture = open_picture(path)
    return Image(picture.read(), picture.metadata, picture.notes)


def save_image(
    path: Path | str, image: Image, *, quality: int = 95, lossless: bool = False
) -> None:
    """Write an image file; an existing one is replaced only when the new one is complete.

    Args:
        path: target; its suffix chooses the format, see :data:`WRITABLE`.
        image: what to write.
        quality: 1 to 100, of JPEG, AVIF and lossy WebP.
        lossless: write WebP and AVIF without loss.

    Raises:
        OutputError: if the suffix is unknown, the format cannot hold the pixels, or the file
            cannot be written.
        ImageError: if ``image.pixels`` is not a picture.
        UsageError: if ``quality`` is out of range.
    """
    options = SaveOptions(quality, lossless)
    layout = layout_of(image.pixels)
    pixels = image.pixels
    if layout.channels == 1:
        layout, pixels = layout_of(pixels[..., 0]), pixels[..., 0]
    if pixels.dtype.kind == "f" and pixels.dtype != layout.dtype:
        raise ImageError(f"float pixels must be float32, got {pixels.dtype}")
    height, width = pixels.shape[:2]
    with PictureWriter(path, height, width, layout, image.metadata, options) as writer:
        writer.write(pixels)
