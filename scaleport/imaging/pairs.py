"""Ground truth and its low-resolution image, made as benchmarks make them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleport.aliases import Array, Uint8Array
from scaleport.errors import ImageError
from scaleport.grid import output_length
from scaleport.imaging.files import load_image
from scaleport.imaging.resample import imresize


@dataclass(frozen=True)
class Pair:
    """LR and HR, uint8 [h, w, 3], or [h, w] of a gray image."""

    lr: Array
    hr: Array


def read_colours(path: Path) -> Uint8Array:
    """One image as uint8 [H, W, 3], or [H, W] if it is gray; alpha is dropped.

    It is decoded as for upscaling: upright, in gray or RGB. 16 bits and floats in [0, 1] are
    rounded to the nearest of 8 bits.

    Raises:
        ImageError: if it is not an image, is damaged, or holds NaN.
    """
    pixels = eight_bits(path, load_image(path).pixels)
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., 0]
    return np.ascontiguousarray(pixels)


def eight_bits(path: Path, pixels: Array) -> Uint8Array:
    """Uint8Array of any type as uint8; raises ImageError for NaN, with the path."""
    if pixels.dtype.kind == "f":
        if np.isnan(pixels.min()):
            raise ImageError(f"{path} holds NaN, which is no brightness; repair or remove it")
        whole: Uint8Array = np.rint(np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8)
        return whole
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels


def read_rgb(path: Path) -> Uint8Array:
    """One image as uint8 [H, W, 3]; gray is replicated, alpha dropped.

    Raises:
        ImageError: if it is not an image or is damaged.
    """
    pixels = read_colours(path)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return pixels


def make_pair(image: Array, scale: float) -> Pair:
    """HR cropped from the top left, and its LR of ``floor(size / scale)`` pixels, at least 1.

    The reduction is antialiased bicubic, rounded to 8 bits after each pass, as MATLAB's.
    """
    height, width = (max(1, math.floor(n / scale + 1e-9)) for n in image.shape[:2])
    hr = image[: output_length(height, scale), : output_length(width, scale)]
    return Pair(imresize(hr, height, width, round_passes=True).astype(np.uint8), hr)
