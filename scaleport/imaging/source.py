"""Where a view takes pixels from: an array in memory, or a file that is read region by region."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scaleport.errors import ImageError
from scaleport.grid import Grid
from scaleport.imaging.convert import Layout, Pixels, Planes, layout_of, to_integers, to_planes
from scaleport.imaging.given import ImageLike, check_finite, pixels_of
from scaleport.imaging.reading import Picture
from scaleport.imaging.transparent import FLAT, REACH, fill_transparent, flat

FlatAlpha = tuple[Planes, npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Alpha float32[3, h, w] around a part of the output, where it is flat as bool[h, w], and the row
and column of these under each row and column of the output."""


class Source(Protocol):
    """Something that hands out the pixels or planes of a region."""

    @property
    def layout(self) -> Layout | None:
        """Channels and type; None for a batch that is already in planes."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def opacity(self) -> np.float32 | None:
        """The value in [0, 1] of alpha that is the same everywhere; None if there is none such."""

    @property
    def filled(self) -> bool:
        """Whether :meth:`planes` changes colour: under transparent pixels it is filled in."""

    @property
    def array(self) -> Pixels | None:
        """All pixels, where they are in memory."""

    def pixels(self, top: int, left: int, bottom: int, right: int) -> Pixels:
        """A region as it is."""

    def planes(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """float32[P, 3, rows, columns] of a region, without alpha if ``opacity`` is its value."""

    def flat_alpha(self, part: Grid) -> FlatAlpha | None:
        """Alpha around a part of the output, to be kept where it is flat; None if there is none."""

    def stored(self, planes: Planes) -> Pixels:
        """Planes in the type of the source; asked for only where there is no layout."""


class BatchSource:
    """[N, 3, H, W] of uint8, uint16 (their full range is [0, 1]) or float.

    Raises:
        ImageError: if an array is not of that shape and type.
    """

    layout: Layout | None = None
    opacity: np.float32 | None = None
    filled = False

    def __init__(self, batch: Pixels) -> None:
        whole = batch.dtype.kind == "u" and batch.dtype.itemsize <= 2
        fits = whole or batch.dtype.kind == "f"
        if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or not fits:
            raise ImageError(
                "a batch must be uint8, uint16 or float [N, 3, H, W], got "
                f"{batch.dtype} {list(batch.shape)}"
            )
        self._batch = batch
        self._integers = batch.dtype.newbyteorder("=") if whole else None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._batch.shape[2], self._batch.shape[3]

    @property
    def array(self) -> Pixels:
        """The batch."""
        return self._batch

    def pixels(self, top: int, left: int, bottom: int, right: int) -> Pixels:
        """float[N, 3, rows, columns] of a region."""
        return self._batch[:, :, top:bottom, left:right]

    def planes(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """float32[N, 3, rows, columns] of a region."""
        part = np.ascontiguousarray(self.pixels(top, left, bottom, right), np.float32)
        if self._integers is not None:
            # Divided like pixels of a picture, to the same float.
            part /= np.float32(np.iinfo(self._integers).max)
        return part

    def flat_alpha(self, part: Grid) -> None:
        """A batch has no alpha."""
        del part

    def stored(self, planes: Planes) -> Pixels:
        """Integers are rounded and clipped to their range, floats left as they are."""
        return planes if self._integers is None else to_integers(planes, self._integers)


class PictureSource:
    """A picture: an array of pixels, or an open file.

    Attributes:
        reach: the least and the largest float that was read from a file so far; NaN before.

    Raises:
        ImageError: if an array is not a picture.
    """

    def __init__(self, picture: Pixels | Picture) -> None:
        self._picture = picture
        self.layout: Layout | None
        if isinstance(picture, Picture):
            self.layout, self.shape = picture.layout, picture.shape
            uniform = picture.uniform_alpha()
        else:
            self.layout, self.shape = layout_of(picture), (picture.shape[0], picture.shape[1])
            alpha = picture[..., -1] if self.layout.has_alpha else picture
            uniform = self.layout.has_alpha and bool(alpha.min() == alpha.max())
        self.opacity: np.float32 | None = None
        self.reach = (math.nan, math.nan)
        if uniform:
            # A network would only make an opaque image a little transparent here and there.
            self.opacity = to_planes(self.pixels(0, 0, 1, 1))[1, 0, 0, 0]

    @property
    def filled(self) -> bool:
        """Whether colour is filled in: where alpha varies."""
        assert self.layout is not None
        return self.layout.has_alpha and self.opacity is None

    @property
    def array(self) -> Pixels | None:
        """The array; None of a file."""
        return None if isinstance(self._picture, Picture) else self._picture

    def pixels(self, top: int, left: int, bottom: int, right: int) -> Pixels:
        """A region as it is."""
        if not isinstance(self._picture, Picture):
            return self._picture[top:bottom, left:right]
        pixels = self._picture.read(top, left, bottom, right)
        if pixels.dtype.kind == "f":
            # Arrays were looked at as a whole; a file is as far as it is read.
            check_finite(pixels)
            low, high = self.reach
            self.reach = (
                float(np.fmin(low, pixels.min())),
                float(np.fmax(high, pixels.max())),
            )
        return pixels

    def planes(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """float32[P, 3, rows, columns] of a region, without alpha if it is the same everywhere."""
        assert self.layout is not None
        if self.filled:
            return self._filled(top, left, bottom, right)
        found = to_planes(self.pixels(top, left, bottom, right))
        return found if self.opacity is None else found[:1]

    def flat_alpha(self, part: Grid) -> FlatAlpha | None:
        """Alpha around a part of the output; None where there is none, or it is all the same."""
        if not self.filled:
            return None
        # The input pixel that each row and column of the output lies on.
        ys, xs = (
            np.clip(axis.index.astype(np.int64) + (axis.offset >= 0.5), 0, axis.n - 1)
            for axis in (part.rows, part.cols)
        )
        top, left = max(0, int(ys[0]) - FLAT), max(0, int(xs[0]) - FLAT)
        bottom = min(self.shape[0], int(ys[-1]) + FLAT + 1)
        right = min(self.shape[1], int(xs[-1]) + FLAT + 1)
        alpha = to_planes(self.pixels(top, left, bottom, right))[1]
        return alpha, flat(alpha[0]), ys - top, xs - left

    def stored(self, planes: Planes) -> Pixels:
        """The planes as they are: the layout says what to make of them."""
        return planes

    def _filled(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """Planes whose colour goes on under what is transparent, as in the whole picture."""
        height, width = self.shape
        y0, x0 = max(0, top - REACH), max(0, left - REACH)
        y1, x1 = min(height, bottom + REACH), min(width, right + REACH)
        planes = fill_transparent(to_planes(self.pixels(y0, x0, y1, x1)))
        return np.ascontiguousarray(planes[:, :, top - y0 : bottom - y0, left - x0 : right - x0])


def source_of(image: ImageLike) -> Source:
    """The source of what a program calls an image, see :func:`scaleport.imaging.given.pixels_of`.

    Raises:
        ImageError: if it is neither a picture nor a batch.
    """
    if isinstance(image, Picture):
        return PictureSource(image)
    found = pixels_of(image)
    if isinstance(found, Picture) or found.ndim != 4:
        return PictureSource(found)
    return BatchSource(found)
