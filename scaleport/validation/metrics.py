"""Distances between images: PSNR in the field's usual protocol, numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Array
from scaleport.errors import ImageError

_LUMA = np.array([65.481, 128.553, 24.966]) / 255


def max_abs(a: Array, b: Array) -> float:
    """Largest absolute difference; NaN if either array holds NaN.

    Raises:
        ImageError: if the shapes differ or the arrays are empty.
    """
    return float(np.max(np.abs(_difference(a, b))))


def psnr(a: Array, b: Array, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, in float64 over all samples.

    Args:
        a: any shape.
        b: the same shape.
        peak: the value that counts as full scale, 1 or 255.

    Returns:
        decibels; infinity for equal arrays.

    Raises:
        ImageError: if the shapes differ or the arrays are empty.
    """
    error = float(np.mean(_difference(a, b) ** 2))
    if error == 0:
        return math.inf
    return 10 * math.log10(peak * peak / error)


def luma(rgb: Array) -> npt.NDArray[np.float64]:
    """Y of BT.601 in studio range, about 16 to 235, not rounded.

    Args:
        rgb: [..., 3] with values 0 .. 255.

    Raises:
        ImageError: if the last dimension is not 3.
    """
    rgb = np.asarray(rgb)
    if rgb.ndim < 1 or rgb.shape[-1] != 3:
        raise ImageError(f"luma needs RGB, got shape {rgb.shape}")
    result: npt.NDArray[np.float64] = rgb.astype(np.float64) @ _LUMA + 16
    return result


def psnr_y(sr: Array, hr: Array, border: int) -> float:
    """PSNR on luma in the protocol of BasicSR, which published tables follow.

    Args:
        sr: [H, W, 3], or [H, W] for an image that is luma already; values 0 .. 255. Anything but
            uint8 is rounded and clipped to 8 bits first.
        hr: ground truth of the same shape.
        border: pixels to leave out on each side; the scale, by custom.

    Returns:
        decibels; infinity for equal images.

    Raises:
        ImageError: if the shapes differ, are not images, or nothing is left within the border.
    """
    if np.shape(sr) != np.shape(hr) or np.ndim(hr) not in (2, 3):
        raise ImageError(f"cannot compare images of shapes {np.shape(sr)} and {np.shape(hr)}")
    planes = []
    for image in (sr, hr):
        image = _eight_bits(image)
        height, width = image.shape[:2]
        if border < 0 or 2 * border >= min(height, width):
            raise ImageError(f"a border of {border} leaves nothing of {height}x{width} pixels")
        image = image[border : height - border, border : width - border]
        planes.append(image.astype(np.float64) if image.ndim == 2 else luma(image))
    return psnr(planes[0], planes[1], 255)


def _eight_bits(image: Array) -> npt.NDArray[np.uint8]:
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _difference(a: Array, b: Array) -> npt.NDArray[np.float64]:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ImageError(f"cannot compare shapes {a.shape} and {b.shape}")
    if a.size == 0:
        raise ImageError("cannot compare empty arrays")
    return a.astype(np.float64) - b.astype(np.float64)
