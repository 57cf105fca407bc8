"""Antialiased cubic resampling with exact regions, numpy only.

Positions come from :class:`scaleport.grid.Axis` (half-pixel convention). The kernel is Keys'
cubic, stretched by the reduction ratio ``max(1, n / N)`` and normalised, applied to rows and then
to columns. :mod:`scaleport.models.resample` is the same arithmetic as a graph (replicated
border); a test holds both together.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Array
from scaleport.errors import ImageError, UsageError
from scaleport.grid import Axis

Border = Literal["symmetric", "replicate"]

# Elements of one intermediate band: small enough to stay in the processor's cache.
_BAND_ELEMENTS = 1 << 18


def cubic_kernel(x: npt.NDArray[np.float64], a: float = -0.5) -> npt.NDArray[np.float64]:
    """Keys' cubic kernel with support [-2, 2]; ``a`` is its slope at 1."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def axis_taps(
    axis: Axis, border: Border = "symmetric", a: float = -0.5
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Input samples and weights of every output sample of an axis.

    Args:
        axis: the output samples, out of the whole axis.
        border: ``symmetric`` mirrors the image at its border, ``replicate`` repeats the border.
        a: parameter of the cubic kernel.

    Returns:
        ``place`` int64[samples, taps], counted from ``axis.origin``, and ``weight`` of the same
        shape, whose rows sum to 1.

    Raises:
        UsageError: if the border is unknown.
    """
    if border not in ("symmetric", "replicate"):
        raise UsageError(f"unknown border {border!r}; known: replicate, symmetric")
    n = axis.n
    ratio = max(1.0, n / axis.N)
    reach = math.ceil(2 * ratio)
    steps = np.arange(1 - reach, reach + 1)
    weight = cubic_kernel((axis.offset.astype(np.float64)[:, None] - steps) / ratio, a)
    weight /= weight.sum(axis=1, keepdims=True)
    # Borders belong to the whole image, so that a crop gives what the whole gives.
    place = axis.index.astype(np.int64)[:, None] + axis.origin + steps
    if border == "replicate":
        place = np.clip(place, 0, n - 1)
    else:
        place %= 2 * n
        place = np.where(place < n, place, 2 * n - 1 - place)
    return place - axis.origin, weight


def support(axis: Axis, border: Border = "symmetric") -> tuple[int, int]:
    """Half-open range of input samples of the whole image that an axis reads.

    A crop of exactly these samples, with ``origin`` set to the first, gives the same output as
    the whole image.
    """
    place, _ = axis_taps(replace(axis, origin=0), border)
    return int(place.min()), int(place.max()) + 1


def resize_matrix(
    axis: Axis, border: Border = "symmetric", a: float = -0.5
) -> npt.NDArray[np.float64]:
    """The resampling of one axis as a dense float64[samples, n] matrix, for small images.

    ``axis.origin`` must be 0: the matrix has a column for every input sample.
    """
    place, weight = axis_taps(replace(axis, origin=0), border, a)
    matrix = np.zeros((place.shape[0], axis.n))
    np.add.at(matrix, (np.arange(place.shape[0])[:, None], place), weight)
    return matrix


def imresize(
    image: Array,
    rows: int | Axis,
    cols: int | Axis,
    border: Border = "symmetric",
    a: float = -0.5,
    round_passes: bool = False,
) -> Array:
    """Resize an image, or compute a region of a resized image.

    Args:
        image: [H, W] or [H, W, C] of any numeric type. Floating-point images are computed in
            their own type (float16 in float32), integer ones in float64.
        rows: output height, or the output rows of a region as an axis. ``rows.n`` is the height of
            the whole input; where ``image`` is only a crop of it, ``rows.origin`` is the row of
            the whole that the crop begins with, and the crop must hold :func:`support` of the
            axis.
        cols: the same for the width.
        border: ``symmetric`` mirrors the image at its border, ``replicate`` repeats the border.
        a: parameter of the cubic kernel.
        round_passes: round to whole numbers and clip to 0 .. 255 after each of the two passes, as
            MATLAB's ``imresize`` does with 8-bit images.

    Returns:
        [rows, columns] or [rows, columns, C], floating point, not clipped unless
        ``round_passes``.

    Raises:
        ImageError: if ``image`` is not an image, or a crop misses samples that the region needs.
        ScaleError: if an output size is out of range.
        UsageError: if the border is unknown.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0 or image.dtype.kind not in "buif":
        raise ImageError(f"not an image: shape {image.shape}, type {image.dtype}")
    axes = []
    for axis, length in zip((rows, cols), image.shape, strict=False):
        axes.append(axis if isinstance(axis, Axis) else Axis.whole(length, axis))
    taps = [axis_taps(axis, border, a) for axis in axes]
    for name, (place, _), length in zip(("rows", "columns"), taps, image.shape, strict=False):
        low, high = int(place.min()), int(place.max())
        if low < 0 or high >= length:
            raise ImageError(
                f"the region needs {name} {low}:{high + 1} of an input with {length}; "
                "check the origin of the crop"
            )
    dtype = np.dtype(np.float64) if image.dtype.kind in "bui" else image.dtype
    dtype = np.promote_types(dtype, np.float32)
    (row_place, row_weight), (col_place, col_weight) = taps
    out = np.empty((len(row_place), len(col_place), *image.shape[2:]), dtype)
    line = max(1, int(np.prod(image.shape[1:])))
    band = max(1, _BAND_ELEMENTS // line)
    for start in range(0, len(out), band):
        part = slice(start, start + band)
        middle = _weighted_sum(image, row_place[part], row_weight[part], 0, dtype)
        if round_passes:
            middle = _round(middle)
        result = _weighted_sum(middle, col_place, col_weight, 1, dtype)
        out[part] = _round(result) if round_passes else result
    return out


def _weighted_sum(
    image: Array, place: Array, weight: Array, dim: int, dtype: np.dtype[Any]
) -> Array:
    """Sum over taps along one dimension, tap by tap: the order never depends on the region."""
    shape = [1] * image.ndim
    shape[dim] = -1
    total: Array | None = None
    for tap in range(place.shape[1]):
        column = weight[:, tap]
        if not column.any():
            continue
        term = np.take(image, place[:, tap], axis=dim).astype(dtype, copy=False)
        term = term * column.astype(dtype).reshape(shape)
        total = term if total is None else np.add(total, term, out=total)
    assert total is not None  # the weights of a sample sum to 1
    return total


def _round(values: Array) -> Array:
    """Nearest of 0 .. 255, halves upwards."""
    rounded: Array = np.clip(np.floor(values + 0.5), 0, 255)
    return rounded
