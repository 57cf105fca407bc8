"""Small pictures for a report: arrays to PNG files inside a page."""

from __future__ import annotations

import base64
import io
from typing import Final

import numpy as np

from scaleport.aliases import Array

ERROR_RANGE: Final = (-7.0, -1.0)
"""Decades of absolute error that the colours of a map span."""

# Dark to bright, told apart in grey and by most colour-blind readers.
_COLOURS: Final = np.array(
    [(8, 10, 40), (70, 20, 110), (165, 45, 95), (235, 105, 50), (252, 190, 60), (252, 252, 190)],
    np.float64,
)


def data_uri(pixels: Array) -> str:
    """A PNG as a ``data:`` address.

    Args:
        pixels: uint8[H, W, 3].
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def to_pixels(image: Array) -> Array:
    """The first image of float[N, 3, H, W] in [0, 1] as uint8[H, W, 3], clipped."""
    planes = np.nan_to_num(image[0], nan=0.0, posinf=1.0, neginf=0.0)
    shown: Array = np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(shown)


def error_map(found: Array, expected: Array) -> Array:
    """Largest error of a pixel's channels as a colour on a logarithmic scale, uint8[H, W, 3].

    Both are float[N, 3, H, W], the first image is drawn. NaN and infinity have the brightest one.
    """
    error = np.abs(found[0].astype(np.float64) - expected[0]).max(axis=0)
    error = np.nan_to_num(error, nan=np.inf)
    low, high = ERROR_RANGE
    with np.errstate(divide="ignore"):
        level = np.clip((np.log10(error) - low) / (high - low), 0, 1)
    return colours(level)


def colours(level: Array) -> Array:
    """Colours uint8[..., 3] of levels 0 .. 1."""
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, places, _COLOURS[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def legend() -> str:
    """The colours of the error maps from left to right, as a ``data:`` address."""
    return data_uri(np.ascontiguousarray(np.repeat(colours(np.linspace(0, 1, 180))[None], 10, 0)))
