"""Where output pixels lie between input pixels: integer arithmetic, numpy only.

This is the only place that computes coordinates. Per axis, with ``n`` input and ``N`` output
samples, output sample ``a`` lies at::

    u(a) = ((2a + 1) * n - N) / (2N)

in input-sample units, centres on integers (half-pixel convention, the borders of both images
coincide). It is split into an integer part and a fraction, both exact::

    index  = floor(u)                 int32, may be -1
    offset = u - index                float32 in [0, 1)

so that no graph ever holds a large coordinate as a float: at reduced precision a float
coordinate loses its fraction as the image grows, an index and an offset never do.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, SupportsIndex

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Float32Array, Int32Array
from scaleport.errors import ScaleError

SIZE_RULE: Final = "round-half-up"
"""Name of the rule of :func:`output_length`, stored in every manifest."""

MAX_LENGTH: Final = 1 << 24
"""Longest axis; up to here every fraction survives the conversion to float32."""

# Decimal scales such as 2.3 are not exact in binary; 15 * 2.3 must still count as a tie.
_TIE_TOLERANCE: Final = 1e-12


def output_length(n: int, scale: float) -> int:
    """Output length of one axis: ``max(1, floor(n * scale + 0.5))``.

    Args:
        n: input length, at least 1.
        scale: requested scale of this axis, finite and above 0.

    Raises:
        ScaleError: if either is not so, or the result is longer than :data:`MAX_LENGTH`.
    """
    if n < 1:
        raise ScaleError(f"an image axis needs at least 1 pixel, got {n}")
    if not math.isfinite(scale) or scale <= 0:
        raise ScaleError(f"scale must be a finite number above 0, got {scale}")
    exact = n * float(scale)
    if exact > MAX_LENGTH:
        raise ScaleError(f"{n} pixels times {scale} is over the limit of {MAX_LENGTH} per axis")
    return max(1, math.floor(exact * (1 + _TIE_TOLERANCE) + 0.5))


def parse_scale(scale: float | Iterable[float]) -> tuple[float, float]:
    """Normalise a scale to ``(scale_y, scale_x)``.

    Args:
        scale: one number for both axes, or a ``(scale_y, scale_x)`` pair.

    Raises:
        ScaleError: if it is neither, or a value is not finite and above 0.
    """
    try:
        if isinstance(scale, (str, bytes)):
            raise TypeError
        if isinstance(scale, Iterable):
            values = [float(value) for value in scale]
        else:
            values = [float(scale)] * 2
    except (TypeError, ValueError):
        raise ScaleError(f"scale must be a number or a (y, x) pair, got {scale!r}") from None
    if len(values) != 2:
        raise ScaleError(f"scale must be a number or a (y, x) pair, got {len(values)} values")
    for value in values:
        if not math.isfinite(value) or value <= 0:
            raise ScaleError(f"scale must be a finite number above 0, got {value}")
    return values[0], values[1]


def whole_numbers(values: Iterable[SupportsIndex], count: int, wanted: str) -> tuple[int, ...]:
    """Whole numbers that a program gave, such as a size.

    Args:
        values: the numbers, of any integer type.
        count: how many there must be.
        wanted: what they are, for the error.

    Raises:
        ScaleError: if they are not that many, or not whole.
    """
    try:
        numbers = tuple(operator.index(value) for value in values)
    except TypeError:
        numbers = ()
    if len(numbers) != count:
        raise ScaleError(f"{wanted}, got {values!r}")
    return numbers


@dataclass(frozen=True)
class Axis:
    """Output samples ``start <= a < stop`` of one axis of ``n`` input and ``N`` output samples.

    ``origin`` is the input sample that counts as index 0: the first sample of a crop.
    """

    n: int
    N: int
    start: int
    stop: int
    origin: int = 0

    def __post_init__(self) -> None:
        """Check the ranges once, so that every array below is valid."""
        if self.n < 1 or self.N < 1:
            raise ScaleError(f"an axis needs at least 1 pixel, got {self.n} -> {self.N}")
        if self.n > MAX_LENGTH or self.N > MAX_LENGTH:
            raise ScaleError(f"axis {self.n} -> {self.N} is over the limit of {MAX_LENGTH}")
        if not 0 <= self.start < self.stop <= self.N:
            raise ScaleError(f"rows or columns {self.start}:{self.stop} are not within 0:{self.N}")

    @classmethod
    def whole(cls, n: int, N: int) -> Axis:
        """All output samples of the axis."""
        return cls(n, N, 0, N)

    @cached_property
    def _split(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        a = np.arange(self.start, self.stop, dtype=np.int64)
        index, rest = np.divmod((2 * a + 1) * self.n - self.N, 2 * self.N)
        return index, rest

    @cached_property
    def index(self) -> Int32Array:
        """int32[stop - start]: ``floor(u)`` counted from ``origin``; -1 above the first sample."""
        return (self._split[0] - self.origin).astype(np.int32)

    @cached_property
    def offset(self) -> Float32Array:
        """float32[stop - start] in [0, 1): the fraction of ``u``."""
        value = (self._split[1] / np.float64(2 * self.N)).astype(np.float32)
        # A fraction within half an ulp of 1 must not round up: index and offset belong together.
        below: Float32Array = np.minimum(value, np.float32(1) - np.float32(2**-24))
        return below

    @property
    def scale(self) -> float:
        """The scale really applied, ``N / n``."""
        return self.N / self.n

    def slice(self, start: int, stop: int, origin: int = 0) -> Axis:
        """Output samples ``start:stop`` of the whole axis, indices counted from ``origin``."""
        return Axis(self.n, self.N, start, stop, origin)

    def span(self) -> tuple[int, int]:
        """Half-open range of input samples that lie in ``floor(u) .. floor(u) + 1``, clamped."""
        first = int(self._split[0][0])
        last = int(self._split[0][-1]) + 1
        return max(0, min(first, self.n - 1)), max(1, min(last + 1, self.n))

    def owned(self, first: int, last: int) -> tuple[int, int]:
        """Output samples whose centres lie on input samples ``first <= i < last`` of the axis.

        Ranges of adjoining input ranges adjoin and cover every output sample once; at an integer
        scale the s output samples of one input sample stay together.
        """
        return self._first_at(first), self._first_at(last)

    def _first_at(self, i: int) -> int:
        # Between borders the centre of sample a lies at (2a + 1) * n / (2N): the smallest a
        # with that at least i.
        return -((self.n - 2 * self.N * i) // (2 * self.n))


@dataclass(frozen=True)
class Grid:
    """The positions of a rectangle of output pixels: one :class:`Axis` per direction."""

    rows: Axis
    cols: Axis

    @classmethod
    def from_scale(cls, height: int, width: int, scale: float | Iterable[float]) -> Grid:
        """All output pixels at a scale, or at a ``(scale_y, scale_x)`` pair.

        Args:
            height: LR height H in pixels.
            width: LR width W in pixels.
            scale: requested scale; the size follows :func:`output_length` per axis.

        Raises:
            ScaleError: if the scale is not finite and positive, or a size is out of range.
        """
        scale_y, scale_x = parse_scale(scale)
        return cls.from_size(
            height, width, output_length(height, scale_y), output_length(width, scale_x)
        )

    @classmethod
    def from_size(cls, height: int, width: int, out_height: int, out_width: int) -> Grid:
        """All pixels of an output of exactly ``out_height`` x ``out_width`` pixels."""
        return cls(Axis.whole(height, out_height), Axis.whole(width, out_width))

    @property
    def input_size(self) -> tuple[int, int]:
        """LR size (H, W) of the whole image."""
        return self.rows.n, self.cols.n

    @property
    def output_size(self) -> tuple[int, int]:
        """Output size (Ho, Wo) of the whole image, whatever region this grid covers."""
        return self.rows.N, self.cols.N

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels in this region, (rows, columns)."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start

    @property
    def scale(self) -> Float32Array:
        """float32[2]: the applied scale, (Ho / H, Wo / W)."""
        return np.array([self.rows.scale, self.cols.scale], dtype=np.float32)

    @property
    def cell(self) -> Float32Array:
        """float32[2]: size of an output pixel where the whole output is 2 x 2, (2/Ho, 2/Wo)."""
        cell: Float32Array = np.float32(2) / np.array(self.output_size, dtype=np.float32)
        return cell

    def region(self, y0: int, x0: int, y1: int, x1: int, origin: tuple[int, int] = (0, 0)) -> Grid:
        """Output pixels ``y0:y1, x0:x1`` of the whole output.

        Args:
            y0: first row.
            x0: first column.
            y1: row after the last.
            x1: column after the last.
            origin: LR pixel (y, x) that counts as index (0, 0): the corner of a crop.

        Raises:
            ScaleError: if the region is empty or not within the output.
        """
        return Grid(self.rows.slice(y0, y1, origin[0]), self.cols.slice(x0, x1, origin[1]))

    def feeds(self) -> dict[str, npt.NDArray[np.int32] | npt.NDArray[np.float32]]:
        """The five graph inputs of a query model.

        ``row_index`` int32[Ho], ``row_offset`` float32[Ho], ``col_index`` int32[Wo],
        ``col_offset`` float32[Wo], ``scale`` float32[2].
        """
        return {
            "row_index": self.rows.index,
            "row_offset": self.rows.offset,
            "col_index": self.cols.index,
            "col_offset": self.cols.offset,
            "scale": self.scale,
        }


def in_longer(index: Int32Array, n: int, length: int) -> Int32Array:
    """Indices into ``n`` samples, for a graph whose axis has ``length`` samples, at least ``n``.

    The longer axis shows the last sample from ``n - 1`` up to its end. Where a position is on the
    last sample, its index moves to the end, so that the graph clamps where the samples end.
    """
    return np.where(index >= n - 1, index + np.int32(length - n), index).astype(np.int32)


def subpixel_centres(scale: int) -> Float32Array:
    """float32[scale]: centres of the sub-pixels of one pixel on [-1, 1], ``(2i + 1) / s - 1``."""
    if scale < 1:
        raise ScaleError(f"an integer scale must be at least 1, got {scale}")
    i = np.arange(scale, dtype=np.float64)
    return ((2 * i + 1) / scale - 1).astype(np.float32)
