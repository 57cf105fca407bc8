"""What happens to pictures on their way to people: blur, resizing, noise and compression.

Every step maps uint8[H, W] or [H, W, 3] to uint8 of the same layout and draws only from the
generator that it is given. They are the steps of blind super-resolution: arXiv 2103.14006 (BSRGAN:
random order, anisotropic blur, several filters) and arXiv 2107.10833 (Real-ESRGAN: twice, Poisson
noise, sinc).
"""

from __future__ import annotations

import io
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from scaleport.aliases import Float64Array, Uint8Array

Codec = Literal["jpeg", "webp"]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters by name; all but ``nearest`` are antialiased where they reduce."""


def to_bytes(values: npt.NDArray[Any]) -> Uint8Array:
    """Values 0 .. 255 rounded half up and clipped to uint8."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def gaussian_kernel(sigma_y: float, sigma_x: float, angle: float = 0.0) -> Float64Array:
    """A Gaussian blur as float64[n, n], n odd, with sum 1.

    Args:
        sigma_y: standard deviation along the first axis in pixels, above 0.
        sigma_x: the same along the second.
        angle: by how much both are turned, in radians.
    """
    radius = max(1, math.ceil(3 * max(sigma_y, sigma_x)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = math.cos(angle) * y + math.sin(angle) * x
    across = math.cos(angle) * x - math.sin(angle) * y
    kernel: Float64Array = np.exp(-0.5 * ((along / sigma_y) ** 2 + (across / sigma_x) ** 2))
    kernel /= kernel.sum()
    return kernel


def sinc_kernel(cutoff: float, radius: int) -> Float64Array:
    """A circular low-pass filter, which leaves rings beside edges: float64[n, n] with sum 1.

    Args:
        cutoff: in radians per pixel, above 0 and at most pi.
        radius: n = 2 radius + 1.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    r = np.hypot(y, x)
    r[radius, radius] = 1  # a place holder, see below
    # The Bessel function J1 as the mean over a circle, exact to rounding at these arguments.
    t = 2 * np.pi * (np.arange(128) + 0.5) / 128
    j1 = np.cos(t - cutoff * r[..., None] * np.sin(t)).mean(axis=-1)
    kernel: Float64Array = cutoff * j1 / (2 * np.pi * r)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)
    kernel /= kernel.sum()
    return kernel


def blur(image: Uint8Array, kernel: Float64Array) -> Uint8Array:
    """Convolve with a kernel float64[n, n], n odd; borders are mirrored."""
    radius = len(kernel) // 2
    planes = np.atleast_3d(image)
    padded = np.pad(planes, ((radius, radius), (radius, radius), (0, 0)), "symmetric")
    size = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, size)[..., None]
    whole = np.fft.irfft2(spectrum, size, axes=(0, 1))
    return to_bytes(whole[2 * radius :, 2 * radius :]).reshape(image.shape)


def resize(image: Uint8Array, height: int, width: int, name: str) -> Uint8Array:
    """Resize with one of :data:`FILTERS`, as Pillow does it."""
    return np.asarray(Image.fromarray(image).resize((width, height), FILTERS[name]))


def gaussian_noise(
    image: Uint8Array, sigma: float, rng: np.random.Generator, gray: bool = False
) -> Uint8Array:
    """Add noise of a standard deviation given in levels of 255.

    Args:
        image: uint8[H, W] or [H, W, 3].
        sigma: the standard deviation, at least 0.
        rng: draws the noise.
        gray: whether all channels get the same noise.
    """
    shape = (*image.shape[:2], 1) if gray and image.ndim == 3 else image.shape
    return to_bytes(image + sigma * rng.standard_normal(shape))


def poisson_noise(
    image: Uint8Array, sigma: float, rng: np.random.Generator, gray: bool = False
) -> Uint8Array:
    """Noise of photons, whose variance grows with brightness.

    Args:
        image: uint8[H, W] or [H, W, 3].
        sigma: the standard deviation where the image is white, in levels of 255, above 0.
        rng: draws the noise.
        gray: whether all channels get the noise of their mean.
    """
    photons = (255 / sigma) ** 2  # of white, so that sqrt(photons) / photons is sigma / 255
    light = image.astype(np.float64)
    if gray and image.ndim == 3:
        light = light.mean(axis=-1, keepdims=True)
    noise = rng.poisson(light / 255 * photons) / photons * 255 - light
    return to_bytes(image + noise)


def compress(
    image: Uint8Array,
    codec: Codec,
    quality: int,
    full_colour: bool = False,
    phase: tuple[int, int] = (0, 0),
) -> Uint8Array:
    """Write and read a picture as JPEG or WebP.

    Args:
        image: uint8[H, W, 3] or [H, W].
        codec: ``jpeg`` or ``webp``.
        quality: 1 to 100, as Pillow counts it.
        full_colour: whether JPEG keeps colours at full resolution (4:4:4, else 4:2:0).
        phase: rows and columns by which the blocks of the codec begin before the image, as they
            do in a crop of a larger picture; what lies there is mirrored.
    """
    y, x = phase
    height, width = image.shape[:2]
    if y or x:
        colours = ((0, 0),) * (image.ndim - 2)
        image = np.pad(image, ((y, 0), (x, 0), *colours), "symmetric")
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": quality}
    if codec == "jpeg":
        options["subsampling"] = 0 if full_colour else 2
    else:
        options["method"] = 0  # the fastest search; the artefacts are of the same kind
    Image.fromarray(image).save(stream, codec, **options)
    with Image.open(stream) as read:
        back = np.array(read.convert("RGB" if image.ndim == 3 else "L"))
    return back[y : y + height, x : x + width]
