"""Draw the sample image of the demo: edges, text, texture and gradients, nothing borrowed.

``python tools/make_sample.py`` rewrites ``examples/sample.png``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, OVERSAMPLING = 192, 128, 4


def draw() -> Image.Image:
    """Paint the scene large and reduce it, so that its edges are antialiased like a photo's."""
    width, height = WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING
    y, x = np.mgrid[0:height, 0:width] / height
    sky = np.stack([0.35 + 0.5 * y, 0.55 + 0.3 * y, 0.95 - 0.15 * y], axis=-1)
    rings = 0.5 + 0.5 * np.cos(90 * ((x - 1.15) ** 2 + (y - 0.32) ** 2))
    disc = ((x - 1.15) ** 2 + (y - 0.32) ** 2 < 0.07)[..., None]
    sky = np.where(disc, np.stack([rings, 0.6 * rings + 0.2, 0.3 * rings], axis=-1), sky)
    rng = np.random.default_rng(7)
    ridge = 0.62 + 0.08 * np.sin(7 * x[0]) + 0.03 * np.sin(31 * x[0] + 1)
    land = y > ridge[None, :]
    grain = rng.normal(0, 0.07, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    stripes = 0.06 * np.sin(60 * (x + 0.6 * y))
    ground = np.stack([0.25 + stripes, 0.45 + stripes, 0.2 + 0.5 * stripes], axis=-1)
    scene = np.where(land[..., None], ground + grain[..., None], sky)
    picture = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    left, top = int(0.1 * height), int(0.32 * height)
    pen.rectangle([left, top, left + 210, top + 250], fill=(196, 86, 60))
    for row in range(4):
        for column in range(3):
            corner = (left + 22 + 62 * column, top + 18 + 58 * row)
            pen.rectangle([*corner, corner[0] + 38, corner[1] + 34], fill=(250, 232, 170))
    pen.polygon([(left - 18, top), (left + 105, top - 90), (left + 228, top)], fill=(84, 40, 44))
    for spoke in range(24):
        angle = spoke * np.pi / 12
        tip = (420 + 105 * np.cos(angle), 385 + 105 * np.sin(angle))
        pen.line([(420, 385), tip], fill=(24, 24, 40), width=4)
    pen.text((500, 320), "scale", fill=(255, 255, 255), font=ImageFont.load_default(76))
    pen.text((500, 400), "port 2.7x", fill=(20, 20, 20), font=ImageFont.load_default(44))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("sample.png"))
