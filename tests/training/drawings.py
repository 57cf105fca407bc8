"""Pictures that a small network soon upscales better than bicubic does: sharp shapes and lines."""

import math

import numpy as np
from PIL import Image, ImageDraw

_FINE = 2


def drawing(number, side=128):
    """uint8[side, side, 3]: overlapping shapes and strokes under waves."""
    rng = np.random.default_rng(number)
    canvas = Image.new(
        "RGB", (side * _FINE, side * _FINE), tuple(rng.integers(60, 200, 3).tolist())
    )
    draw = ImageDraw.Draw(canvas)
    for _ in range(40):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        x, y = rng.integers(0, side * _FINE, 2).tolist()
        w, h = rng.integers(8 * _FINE, 48 * _FINE, 2).tolist()
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=colour)
        elif kind == 1:
            corners = [
                (x + int(w * np.cos(a)), y + int(h * np.sin(a))) for a in rng.uniform(0, 6, 3)
            ]
            draw.polygon(corners, fill=colour)
        else:
            draw.line((x, y, x + w - 4 * h, y + 2 * h), fill=colour, width=int(rng.integers(2, 8)))
    shapes = np.asarray(canvas.resize((side, side), Image.Resampling.BOX)).astype(float)
    # On flat ground bilinear is right almost everywhere, and L1 would keep a network there.
    y, x = np.mgrid[:side, :side]
    for _ in range(6):
        angle, period, phase = rng.uniform(0, [math.pi, 1, 2 * math.pi])
        wave = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / (5 + 9 * period)
        shapes += 12 * np.sin(wave + phase)[..., None]
    return np.clip(np.round(shapes), 0, 255).astype(np.uint8)


def draw_folder(folder, count=12):
    """Write ``count`` drawings as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(drawing(number)).save(folder / f"{number:02}.png")
    return folder
