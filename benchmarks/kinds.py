"""Different kinds of pictures through the command line: side by side, and measured.

This::

    python benchmarks/kinds.py scaleport-s.bundle scaleport-any.bundle -o docs/images/kinds.png

draws a logo on nothing and a 16-bit gradient, upscales them and ``examples/sample.png`` x3 in small
tiles, and puts a part of each beside a bicubic enlargement. Printed is, for each of them:

- how much the mean of each channel changed, in levels of 255, after reducing the output again;
- seams: how much the difference from bicubic changes across borders of tiles, as a part of what it
  does elsewhere at the same place of an input pixel (1 is none);
- of how many levels the input and the output are.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import scaleport.imaging.files as files
from scaleport.cli.main import main as scaleport
from scaleport.imaging.resample import imresize
from scaleport.runtimes.tiling import cut

SCALE, TILE = 3, 48
SAMPLE = Path(__file__).parent.parent / "examples" / "sample.png"
CORNERS = {"sample": (180, 150), "logo": (200, 90), "gradient": (60, 60)}
WIDTH, HEIGHT = 240, 160

Pixels = npt.NDArray[Any]


def draw(folder: Path) -> dict[str, Pixels]:
    """Write the inputs."""
    large = Image.new("L", (192 * 4, 128 * 4))
    pen = ImageDraw.Draw(large)
    pen.ellipse([60, 60, 440, 440], fill=255)
    pen.text((250, 150), "Scale", fill=255, font=ImageFont.load_default(176))
    y, x = np.mgrid[:128, :192]
    # Soft edges, fading out to the right; black lies under what is transparent.
    fade = np.clip((180 - x) / 60, 0, 1)
    alpha = np.asarray(large.resize((192, 128), Image.Resampling.BOX)) * fade
    colour = np.stack([np.full(x.shape, 230), 60 + x / 2, 40 + y], axis=-1) * (alpha[..., None] > 0)
    logo = np.dstack([colour, alpha]).round().astype(np.uint8)
    ramp = (12000 + 10 * x + 3 * y)[..., None] * [1, 1.2, 0.8]
    made = {
        "sample": files.load_image(SAMPLE).pixels,
        "logo": logo,
        "gradient": ramp.round().astype(np.uint16),
    }
    for name, pixels in made.items():
        files.save_image(folder / f"{name}.png", files.Image(pixels))
    return made


def levels(pixels: Pixels) -> Pixels:
    """Float pixels in [0, 255], colour multiplied with alpha."""
    values = pixels * (255 / np.iinfo(pixels.dtype).max)
    if values.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255
    return values.astype(np.float32)


def seams(error: Pixels, axis: int) -> float:
    """Change of an error across borders of tiles, as a part of that three pixels beside them."""
    steps = np.abs(np.diff(error, axis=axis)).mean(axis=(1 - axis, 2))
    borders = [SCALE * span.stop - 1 for span in cut(error.shape[axis] // SCALE, TILE, 0)[:-1]]
    beside = [border + SCALE * i for border in borders for i in (-3, -2, -1, 1, 2, 3)]
    return float(steps[borders].mean() / steps[beside].mean())


def shown(pixels: Pixels, name: str, drawn: Pixels) -> Pixels:
    """What a screen would show of a part: transparent on a pattern, the gradient with contrast."""
    values = levels(pixels)
    if values.shape[2] == 4:
        y, x = np.mgrid[: len(values), : values.shape[1]] // 24
        pattern = np.where((x + y) % 2, 255, 200)[..., None]
        values = values[..., :3] + pattern * (1 - values[..., 3:] / 255)
    left, top = CORNERS[name]
    part = values[top : top + HEIGHT, left : left + WIDTH]
    if name == "gradient":
        low, high = (bound(levels(drawn), axis=(0, 1)) for bound in (np.min, np.max))
        part = (part - low) / (high - low) * 255
    return np.clip(part, 0, 255).round().astype(np.uint8)


def main() -> None:
    """Draw, upscale, measure, and put together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures = draw(folder)
        rows: dict[str, list[Pixels]] = {name: [] for name in pictures}
        for name, pixels in pictures.items():
            size = (SCALE * pixels.shape[0], SCALE * pixels.shape[1])
            most = np.iinfo(pixels.dtype).max
            bicubic = np.clip(imresize(pixels.astype(np.float32), *size), 0, most)
            rows[name].append(shown(bicubic.round().astype(pixels.dtype), name, pixels))
        for bundle in arguments.bundles:
            inputs = [str(folder / f"{name}.png") for name in pictures]
            out = folder / bundle.stem
            line = ["upscale", *inputs, "-m", str(bundle), "-s", str(SCALE), "--tile", str(TILE)]
            if code := scaleport([*line, "-o", f"{out}/", "--quiet"]):
                raise SystemExit(code)
            for name, pixels in pictures.items():
                made = files.load_image(out / f"{name}_x{SCALE}.png").pixels
                large, small = levels(made), levels(pixels)
                shift = (imresize(large, *small.shape[:2]) - small).mean(axis=(0, 1))
                error = large - imresize(small, *large.shape[:2])
                counts = [len(np.unique(p[..., 0])) for p in (pixels, made)]
                across = " ".join(f"{seams(error, axis):.2f}" for axis in (0, 1))
                print(f"{bundle.stem} {name}: shift {shift.round(2)} seams {across} of {counts}")
                rows[name].append(shown(made, name, pixels))
    joined = np.concatenate([np.concatenate(row, axis=1) for row in rows.values()])
    Image.fromarray(joined).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
