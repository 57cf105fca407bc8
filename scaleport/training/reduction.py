"""LR patches of HR patches, with the same bits on every processor and device.

Weights are whole multiples of 2^-40. A weighted sum of bytes is then a multiple of it too, and
below 2^53 of them, so float64 holds every partial sum exactly: it does not matter in which order a
library or a GPU adds. Both reductions round after each of their two passes, which leaves bytes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Float64Array, Uint8Array
from scaleport.grid import Axis
from scaleport.imaging.resample import cubic_kernel, resize_matrix

Method = Literal["matlab", "pil"]

_STEP = 2.0**-40
_PILLOW_STEP = 2.0**-22
_BLOCK = 10


@functools.lru_cache(maxsize=4096)
def reduction_matrix(length: int, out: int, method: Method = "matlab") -> Float64Array:
    """Weights float64[out, length] of a reduction along one axis, read-only.

    ``matlab`` is antialiased bicubic as MATLAB's ``imresize``, borders mirrored. ``pil`` is
    Pillow's bicubic, which cuts its kernel off at borders and counts weights in steps of 2^-22.
    """
    if method == "matlab":
        exact = resize_matrix(Axis.whole(length, out))
        matrix: Float64Array = np.rint(exact / _STEP) * _STEP
    else:
        matrix = _pillow_matrix(length, out)
    matrix.setflags(write=False)
    return matrix


def _pillow_matrix(length: int, out: int) -> Float64Array:
    matrix = np.zeros((out, length))
    if length == out:  # Pillow copies then
        np.fill_diagonal(matrix, 1)
        return matrix
    ratio = length / out
    stretch = max(1.0, ratio)
    for row in range(out):
        centre = (row + 0.5) * ratio
        first = max(0, int(centre - 2 * stretch + 0.5))
        last = min(length, int(centre + 2 * stretch + 0.5))
        place = np.arange(first, last, dtype=np.float64) + 0.5
        weight = cubic_kernel((place - centre) / stretch)
        weight = weight / weight.sum()
        steps = np.floor(np.abs(weight) / _PILLOW_STEP + 0.5)
        matrix[row, first:last] = np.copysign(steps, weight) * _PILLOW_STEP
    return matrix


@dataclass(frozen=True)
class _Band:
    """Rows of a reduction and the columns that they read."""

    rows: slice
    columns: slice
    weight: Float64Array


@functools.lru_cache(maxsize=1024)
def _bands(length: int, out: int, method: Method) -> tuple[_Band, ...]:
    """The matrix in blocks: most of it is zero."""
    matrix = reduction_matrix(length, out, method)
    bands = []
    for start in range(0, out, _BLOCK):
        part = matrix[start : start + _BLOCK]
        used = np.flatnonzero(part.any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append(_Band(slice(start, start + len(part)), columns, part[:, columns].copy()))
    return tuple(bands)


def _pass(x: Float64Array, out: int, method: Method) -> Float64Array:
    """One pass over the second-last axis of float64[..., length, k], rounded to bytes."""
    *front, length, width = x.shape
    made = np.empty((*front, out, width))
    for band in _bands(length, out, method):
        np.matmul(band.weight, x[..., band.columns, :], out=made[..., band.rows, :])
    made += 0.5
    np.floor(made, out=made)
    np.clip(made, 0, 255, out=made)
    return made


def reduced(
    hr: npt.NDArray[Any], height: int, width: int, method: Method = "matlab"
) -> Float64Array:
    """Reduce [..., H, W, 3] with whole values 0 .. 255 to float64[..., height, width, 3] of such.

    As MATLAB's ``imresize`` or Pillow's ``resize`` reduces 8-bit images.
    """
    *front, h, w, c = hr.shape
    x = np.asarray(hr, np.float64)
    if method == "matlab":
        x = _pass(x.reshape(*front, h, w * c), height, method).reshape(*front, height, w, c)
        return _pass(x, width, method)
    x = _pass(x, width, method)  # Pillow begins with rows of pixels
    return _pass(x.reshape(*front, h, width * c), height, method).reshape(*front, height, width, c)


def reduce_patches(hr: Uint8Array, side: int, method: Method) -> Uint8Array:
    """LR uint8[n, side, side, 3] of HR patches uint8[n, S, S, 3]."""
    return reduced(hr, side, side, method).astype(np.uint8)
