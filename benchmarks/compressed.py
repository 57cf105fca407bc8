"""Compressed and noisy photographs through several networks, side by side at equal crops.

This::

    python benchmarks/compressed.py scaleport-m scaleport-photo -o docs/images/compressed.png

takes free photographs of scikit-image, reduces them, saves them as JPEG or adds noise, and upscales
them by x2 and x4: bicubic, each network (a shipped name, a checkpoint or a bundle), and the
original.
Pixels are those of the output, none is enlarged. Printed is the luma PSNR of each crop in dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from scaleport.evaluation.degrade import parse_degradation
from scaleport.evaluation.subjects import Subject, bicubic, open_subject
from scaleport.imaging.degradation import to_bytes
from scaleport.imaging.resample import imresize
from scaleport.validation.metrics import psnr_y

Pixels = npt.NDArray[np.uint8]
SIDE, MARGIN, TEXT, GAP = 160, 48, 18, 10


class Crop(NamedTuple):
    """What a row shows: a picture of scikit-image, the middle of the crop, and what LR met."""

    picture: str
    row: int
    column: int
    scale: int
    degradation: str


CROPS = [
    Crop("astronaut", 110, 225, 2, "jpeg:75"),
    Crop("chelsea", 130, 170, 2, "jpeg:75"),
    Crop("coffee", 190, 330, 2, "jpeg:50"),
    Crop("rocket", 250, 320, 2, "jpeg:50"),
    Crop("astronaut", 380, 150, 2, "noise:10"),
    Crop("astronaut", 120, 430, 2, "jpeg:50"),
    Crop("astronaut", 110, 225, 4, "jpeg:75"),
    Crop("chelsea", 130, 170, 4, "jpeg:75"),
    Crop("coffee", 190, 330, 4, "jpeg:50"),
    Crop("astronaut", 120, 430, 4, "jpeg:50"),
    Crop("rocket", 250, 320, 4, "noise:10"),
    Crop("chelsea", 60, 90, 4, "jpeg:50"),
]


def picture(name: str) -> Pixels:
    """One of scikit-image's photographs, uint8[H, W, 3]."""
    image: Pixels = getattr(skimage.data, name)()
    return image


def around(image: Pixels, crop: Crop) -> tuple[Pixels, tuple[int, int]]:
    """The crop with a margin, a multiple of 4 large, and where the crop begins in it."""
    half = SIDE // 2 + MARGIN
    found = []
    for middle, length in zip((crop.row, crop.column), image.shape[:2], strict=True):
        size = min(2 * half, length) // 4 * 4
        start = min(max(0, middle - half), length - size)
        found.append((start, size, min(max(0, middle - SIDE // 2 - start), size - SIDE)))
    (y, height, top), (x, width, left) = found
    return image[y : y + height, x : x + width], (top, left)


def panels(crop: Crop, subjects: list[Subject]) -> list[tuple[str, Pixels]]:
    """What each subject makes of one crop, with its PSNR; the original comes last."""
    hr, (top, left) = around(picture(crop.picture), crop)
    size = [side // crop.scale for side in hr.shape[:2]]
    lr = imresize(hr, *size, round_passes=True).astype(np.uint8)
    lr = parse_degradation([crop.degradation])(lr, crop.picture)
    inner = (slice(top, top + SIDE), slice(left, left + SIDE))
    made = []
    for subject in subjects:
        result = to_bytes(subject.render(lr, *hr.shape[:2]))
        made.append((f"{psnr_y(result[inner], hr[inner], 0):.2f} dB", result[inner]))
    return [*made, ("", hr[inner])]


def main() -> None:
    """Draw the sheet and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+", help="shipped names, checkpoints or bundles")
    parser.add_argument("-o", "--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args()
    subjects = [bicubic(), *(open_subject(name) for name in options.networks)]
    names = [*(subject.name for subject in subjects), "original"]
    wide, high = len(names) * (SIDE + 2) + GAP, SIDE + TEXT
    half = -(-len(CROPS) // 2)
    sheet = Image.new("RGB", (2 * wide, half * high + TEXT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, crop in enumerate(CROPS):
        left, top = place // half * wide, place % half * high + TEXT
        row = panels(crop, subjects)
        what = f"x{crop.scale} {crop.degradation}"
        for number, (figure, pixels) in enumerate(row):
            x = left + number * (SIDE + 2)
            if place % half == 0:
                pen.text((x, 0), names[number], fill="black", font=font)
            pen.text((x, top), figure or what, fill="black", font=font)
            sheet.paste(Image.fromarray(pixels), (x, top + TEXT))
        figures = ", ".join(f"{n} {f}" for n, (f, _) in zip(names, row, strict=True) if f)
        print(f"{crop.picture} {what}: {figures}")
    sheet.save(options.out)


if __name__ == "__main__":
    main()
