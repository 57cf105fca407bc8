"""Where a view takes pixels from: an array in memory, or a file that is read region by region."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from scaleport.errors import ImageError
from scaleport.grid import Grid
from scaleport.imaging.convert import Layout, Pixels, Planes, layout_of, to_planes
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


class BatchSource:
    """float[N, 3, H, W], as networks take it.

    Raises:
        ImageError: if an array is not of that shape and type.
    """

    layout: Layout | None = None
    opacity: np.float32 | None = None
    filled = False

    def __init__(self, batch: Pixels) -> None:
        if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or batch.dtype.kind != "f":
            raise ImageError(
                f"a batch must be float [N, 3, H, W], got {batch.dtype} {list(batch.shape)}"
            )
        self._batch = batch

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
        return np.ascontiguousarray(self.pixels(top, left, bottom, right), np.float32)

    def flat_alpha(self, part: Grid) -> None:
        """A batch has no alpha."""
        del part


class PictureSource:
    """A picture: an array of pixels, or an open file.

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
        if isinstance(self._picture, Picture):
            return self._picture.read(top, left, bottom, right)
        return self._picture[top:bottom, left:right]

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

    def _filled(self, top: int, left: int, bottom: int, right: int) -> Planes:
        """Planes whose colour goes on under what is transparent, as in the whole picture."""
        height, width = self.shape
        y0, x0 = max(0, top - REACH), max(0, left - REACH)
        y1, x1 = min(height, bottom + REACH), min(width, right + REACH)
        planes = fill_transparent(to_planes(self.pixels(y0, x0, y1, x1)))
        return np.ascontiguousarray(planes[:, :, top - y0 : bottom - y0, left - x0 : right - x0])


def source_of(image: Pixels | Picture) -> Source:
    """The source of an open file, a picture or a batch.

    Raises:
        ImageError: if an array is neither a picture nor a batch.
    """
    if isinstance(image, Picture):
        return PictureSource(image)
    array = np.asarray(image)
    return BatchSource(array) if array.ndim == 4 else PictureSource(array)
