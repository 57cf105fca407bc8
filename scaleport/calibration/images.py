"""Calibration data from any folder of images: drawn patch by patch, one image in memory at a time.

A decoder's activations depend on the scale, so each patch comes with a scale of its own. Everything
drawn depends on the folder's content, the settings and the seed alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Array
from scaleport.bundle.integrity import sha256_file
from scaleport.errors import UsageError
from scaleport.grid import Grid, output_length
from scaleport.imaging.folders import KNOWN, images_below
from scaleport.imaging.pairs import Pair, make_pair, read_rgb
from scaleport.imaging.resample import imresize
from scaleport.progress import Progress, silent

USUALLY_HELD_OUT: Final = 8
"""Images that judge the result where nothing else is asked for."""

_SMALLEST: Final = 8


@dataclass(frozen=True)
class Sampling:
    """How calibration patches are drawn.

    Attributes:
        patches: number of patches.
        side: LR rows and columns of a patch; fewer if an image is too small.
        largest_scale: scales are drawn from the model's range up to this.
        held_out: images that judge the result and are never calibrated on; None for
            :data:`USUALLY_HELD_OUT`, or half of the images if those are fewer.
        held_side: HR rows and columns of the crop of a held-out image that is judged.
        seed: seed of all random choices.
    """

    patches: int = 48
    side: int = 40
    largest_scale: float = 8.0
    held_out: int | None = None
    held_side: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.patches < 1 or (self.held_out is not None and self.held_out < 1):
            raise UsageError("calibration needs at least 1 patch and 1 held-out image")
        if self.side < _SMALLEST or self.held_side < 2 * _SMALLEST:
            raise UsageError(f"patches must be at least {_SMALLEST} pixels wide")


@dataclass(frozen=True)
class Patch:
    """An LR patch float32[1, 3, h, w] in [0, 1], and the grid it is rendered on."""

    image: npt.NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder tree, split into those to calibrate on and those to judge by.

    ``sha256`` covers the names and bytes of all files of both parts.
    """

    folder: Path
    calibration: tuple[Path, ...]
    held_out: tuple[Path, ...]
    sha256: str


def find_images(folder: Path, held_out: int | None, progress: Progress = silent) -> ImageSet:
    """List, hash and split the images below a folder; the held-out ones are evenly spread.

    Args:
        folder: searched recursively.
        held_out: how many images to hold out, at most half of them; None for
            :data:`USUALLY_HELD_OUT`, or half of the images if those are fewer.
        progress: told of each file that is hashed.

    Raises:
        UsageError: if there is no such folder, fewer than 2 images are below it, or more than half
            of them would be held out.
        ImageError: if a file cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; --data takes a folder of images")
    files = images_below(folder)
    if len(files) < 2:
        raise UsageError(
            f"{folder} holds {len(files) or 'no'} images ({KNOWN}); calibration needs at least 2: "
            "one to calibrate on, one to judge by"
        )
    most = len(files) // 2
    if held_out is not None and held_out > most:
        raise UsageError(
            f"{held_out} held-out images are more than half of the {len(files)} in {folder}; hold "
            f"out {most} at most, or add images"
        )
    digest = hashlib.sha256()
    for done, path in enumerate(files):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(_file_digest(path))
        progress(done + 1, len(files), "hashing the images")
    count = held_out or min(USUALLY_HELD_OUT, most)
    held = {(2 * i + 1) * len(files) // (2 * count) for i in range(count)}
    return ImageSet(
        folder,
        tuple(path for i, path in enumerate(files) if i not in held),
        tuple(files[i] for i in sorted(held)),
        digest.hexdigest(),
    )


def _file_digest(path: Path) -> bytes:
    try:
        return bytes.fromhex(sha256_file(path).sha256)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def scales_for(low: float, high: float, count: int) -> npt.NDArray[np.float64]:
    """``count`` scales that cover a range evenly on a logarithmic axis, both ends included."""
    return np.exp(np.linspace(math.log(low), math.log(high), max(2, count)))[:count]


def draw_patches(
    images: ImageSet,
    sampling: Sampling,
    scale: tuple[float, float],
    progress: Progress = silent,
) -> Iterator[Patch]:
    """Draw LR patches and the grids to render them on.

    Scales cover the range evenly; images are visited in a random order, all before any repeats.

    Args:
        images: the set.
        sampling: how to draw.
        scale: smallest and largest scale of the model.
        progress: told of each patch.

    Raises:
        ImageError: if a file is not an image or is damaged.
        UsageError: if the images hold nothing but one colour, or none is large enough.
    """
    low, high = scale[0], max(scale[0], min(scale[1], sampling.largest_scale))
    rng = np.random.Generator(np.random.PCG64(sampling.seed))
    scales = rng.permutation(scales_for(low, high, sampling.patches))
    order: list[int] = []
    varied = False
    for number, wanted in enumerate(scales):
        if not order:
            order = [int(i) for i in rng.permutation(len(images.calibration))]
        lr = _draw(read_rgb(images.calibration[order.pop()]), float(wanted), sampling.side, rng)
        varied = varied or int(lr.max()) != int(lr.min())
        planes = np.ascontiguousarray(lr.transpose(2, 0, 1), np.float32)[None] / np.float32(255)
        yield Patch(planes, Grid.from_scale(lr.shape[0], lr.shape[1], float(wanted)))
        progress(number + 1, len(scales), "patches")
    if not varied:
        raise UsageError(
            f"the images in {images.folder} are all of one colour: no range can be learnt from "
            "them; use photographs like those to be upscaled"
        )


def _draw(image: Array, scale: float, side: int, rng: np.random.Generator) -> Array:
    """A random crop, reduced to LR by ``scale`` and turned by a random multiple of 90 degrees."""
    height, width = (min(side, max(1, int(n / scale))) for n in image.shape[:2])
    tall, wide = output_length(height, scale), output_length(width, scale)
    tall, wide = min(tall, image.shape[0]), min(wide, image.shape[1])
    y = int(rng.integers(image.shape[0] - tall + 1))
    x = int(rng.integers(image.shape[1] - wide + 1))
    crop = image[y : y + tall, x : x + wide]
    small: Array = imresize(crop, height, width, round_passes=True).astype(np.uint8)
    return np.rot90(small, int(rng.integers(4)))


def held_pairs(images: ImageSet, sampling: Sampling, scale: float) -> Iterator[Pair]:
    """The centre of each held-out image with its LR at a scale, as benchmarks make it.

    Raises:
        ImageError: if a file is not an image or is damaged.
    """
    for path in images.held_out:
        image = read_rgb(path)
        height, width = (min(n, sampling.held_side) for n in image.shape[:2])
        y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        yield make_pair(image[y : y + height, x : x + width], scale)
