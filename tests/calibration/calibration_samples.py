"""Made-up images and fast settings for calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scaleport.calibration.images import Sampling
from scaleport.imaging.files import Image, save_image
from scaleport.validation.pictures import picture

SAMPLING = Sampling(patches=6, side=16, held_out=2, held_side=64)


def write_images(folder: Path, count: int, height: int = 80, width: int = 72) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = picture(height + number % 3, width, seed=number)[0].transpose(1, 2, 0)
        save_image(folder / f"{number:03}.png", Image((pixels * 255).astype(np.uint8)))
    return folder
