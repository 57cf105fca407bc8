"""Pixels as people keep them, and planes as networks take them.

A network takes float32[P, 3, H, W], RGB in [0, 1]. A picture becomes one plane, or two if it has
alpha: gray is replicated to the three channels and averaged back, and alpha goes through the same
network as a gray picture of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleport.aliases import Array, Float32Array
from scaleport.errors import BackendError, ImageError

Pixels = Array
Planes = Float32Array


@dataclass(frozen=True)
class Layout:
    """What :func:`from_planes` must know to undo :func:`to_planes`.

    ``channels`` is 0 for HW, else C of HWC: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
    ``dtype`` is uint8, uint16 or float32.
    """

    channels: int
    dtype: np.dtype[Any]

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)

    @property
    def planes(self) -> int:
        """Number of planes P."""
        return 2 if self.has_alpha else 1


def layout_of(pixels: Pixels) -> Layout:
    """Check that an array is a picture and describe it.

    Args:
        pixels: uint8, uint16 or float, [H, W] or [H, W, C] with C from 1 to 4.

    Raises:
        ImageError: if it is of another shape or type, or empty.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4)):
        raise ImageError(
            f"pixels must be [H, W] or [H, W, C] with 1 to 4 channels, got shape {pixels.shape}"
        )
    if 0 in pixels.shape:
        raise ImageError(f"an image needs at least 1 pixel, got shape {pixels.shape}")
    if pixels.dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        dtype = pixels.dtype.newbyteorder("=")
    else:
        raise ImageError(f"pixels must be uint8, uint16 or float, got {pixels.dtype}")
    return Layout(0 if pixels.ndim == 2 else pixels.shape[2], dtype)


def to_planes(pixels: Pixels) -> Planes:
    """Turn a picture into what a network takes.

    Args:
        pixels: uint8, uint16 (their full range becomes [0, 1]) or float (taken as it is), [H, W]
            or [H, W, C] with C from 1 to 4.

    Returns:
        float32[P, 3, H, W], P = 2 with alpha as the second plane, else 1.

    Raises:
        ImageError: if ``pixels`` is not a picture.
    """
    layout = layout_of(pixels)
    values = pixels.reshape(*pixels.shape[:2], -1).astype(np.float32)
    if layout.dtype.kind == "u":
        values /= np.float32(np.iinfo(layout.dtype).max)
    colours = values[..., :-1] if layout.has_alpha else values
    parts = [colours, values[..., -1:]] if layout.has_alpha else [colours]
    height, width = pixels.shape[:2]
    planes = np.empty((layout.planes, 3, height, width), dtype=np.float32)
    for plane, part in zip(planes, parts, strict=True):
        plane[...] = part.transpose(2, 0, 1)
    return planes


def from_planes(planes: Planes, layout: Layout, finite: bool = False) -> Pixels:
    """Turn planes back into a picture of a layout.

    Integers are rounded half to even and clipped to their range; float is left as it is.

    Args:
        planes: float[P, 3, H, W].
        layout: layout of the picture that the planes were made from.
        finite: whether the planes are known to hold no NaN; else they are looked through.

    Returns:
        [H, W] or [H, W, C] of the layout's type.

    Raises:
        ImageError: if the planes do not fit the layout.
        BackendError: if a NaN would have to become an integer.
    """
    if planes.ndim != 4 or planes.shape[:2] != (layout.planes, 3):
        raise ImageError(f"expected planes [{layout.planes}, 3, H, W], got {planes.shape}")
    colours = planes[0] if layout.channels >= 3 else [_gray(planes[0])]
    channels = [*colours, *([_gray(planes[1])] if layout.has_alpha else [])]
    if layout.dtype.kind == "u":
        channels = [to_integers(channel, layout.dtype, finite) for channel in channels]
    if layout.channels == 0:
        gray: Pixels = channels[0]
        return gray
    # Channel by channel: whole pictures of intermediate values would not fit the cache.
    pixels: Pixels = np.stack(channels, axis=-1).astype(layout.dtype, copy=False)
    return pixels


def _gray(plane: Planes) -> Planes:
    mean: Planes = plane.mean(axis=0, dtype=np.float32)
    return mean


def to_integers(values: Pixels, dtype: np.dtype[Any], finite: bool = False) -> Pixels:
    """Map float values in [0, 1] to the full range of uint8 or uint16.

    Rounded half to even and clipped; the result is contiguous.

    Raises:
        BackendError: if a value is NaN: the network overflowed, no integer stands for that.
    """
    if not finite and np.isnan(values.min()):
        raise BackendError("the network returned NaN; try a higher precision, e.g. fp32")
    top = np.float32(np.iinfo(dtype).max)
    scaled: Planes = np.multiply(values, top, dtype=np.float32)
    np.rint(scaled, out=scaled)
    return np.ascontiguousarray(np.clip(scaled, 0, top, out=scaled).astype(dtype))
