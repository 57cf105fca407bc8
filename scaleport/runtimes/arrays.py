"""Arithmetic on pixels where they lie: in host memory here, on a device in the modules beside it.

A session hands out its results as values (:data:`scaleport.runtimes.base.Value`). What a picture
needs before and after the network is arithmetic on those values: conversion to planes, the
reduction from the lattice, blending of tiles, rounding to integers. :class:`Arrays` names these
operations, so that a view is written once and each picture crosses the border between host and
device twice: its pixels go up, the result comes down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from scaleport.aliases import Array
from scaleport.grid import Axis
from scaleport.imaging.convert import Layout, from_planes, to_planes
from scaleport.imaging.resample import imresize
from scaleport.runtimes.base import Session, Value

Native: TypeAlias = Any
"""An array of the library that an :class:`Arrays` works with."""


class Arrays(Protocol):
    """Arrays of one kind of memory. Planes are float32[P, 3, H, W], see :mod:`imaging.convert`.

    Methods raise :class:`~scaleport.errors.OutOfMemoryError` where the memory does not suffice.
    """

    @property
    def device(self) -> str:
        """``cpu``, ``cuda:0``, ..."""
        ...

    @property
    def on_host(self) -> bool:
        """Whether these are numpy arrays, which need no copies."""
        ...

    def upload(self, array: Array) -> Native:
        """Bring an array from host memory."""
        ...

    def download(self, native: Native) -> Array:
        """Bring an array to host memory."""
        ...

    def wrap(self, native: Native) -> Value:
        """The array as a value that sessions take."""
        ...

    def unwrap(self, value: Value) -> Native:
        """A value of a session as an array; one in host memory is brought here."""
        ...

    def planes(self, pixels: Native, layout: Layout | None) -> Native:
        """What a network takes, see :func:`~scaleport.imaging.convert.to_planes`.

        Without a layout ``pixels`` are float[N, 3, H, W] already.
        """
        ...

    def crop(self, values: Native, index: tuple[slice, ...]) -> Native:
        """A part of an array, contiguous."""
        ...

    def reduced(self, lattice: Native, rows: Axis, cols: Axis) -> Native:
        """Antialiased resampling of a crop of planes, border replicated.

        The arithmetic is that of :func:`scaleport.imaging.resample.imresize`; the origins of the
        axes say where the crop lies in the whole lattice.
        """
        ...

    def settled(self, planes: Native, alpha: Array, flat: Array, ys: Array, xs: Array) -> Native:
        """Two planes with the second replaced where alpha is flat.

        Args:
            planes: float32[2, 3, rows, columns].
            alpha: float32[3, h, w] of the input around it.
            flat: bool[h, w], where that is to be kept exactly.
            ys: int64[rows], the row of ``alpha`` under each row of the output.
            xs: int64[columns].
        """
        ...

    def with_opacity(self, planes: Native, opacity: float) -> Native:
        """Planes [1, 3, H, W] with a second one of a constant value behind them."""
        ...

    def weighted(self, planes: Native, rows: Array, cols: Array) -> Native:
        """Planes times a weight per row and per column, a new array."""
        ...

    def finite(self, planes: Native) -> Native:
        """Whether all are numbers: a bool, or one that lies on the device."""
        ...

    def pixels(self, planes: Native, layout: Layout | None) -> Native:
        """Finished pixels, see :func:`~scaleport.imaging.convert.from_planes`."""
        ...

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Native:
        """A new array of any content."""
        ...

    def concatenated(self, parts: Sequence[Native], axis: int) -> Native:
        """Arrays joined along an axis."""
        ...

    def copied(self, native: Native) -> Native:
        """A copy of its own, that keeps nothing else alive."""
        ...


class HostArrays:
    """Plain numpy. Each step keeps to the processor's cache where it can."""

    device: Final = "cpu"
    on_host: Final = True

    def upload(self, array: Array) -> Native:
        """The array itself."""
        return array

    def download(self, native: Native) -> Array:
        """The array itself."""
        array: Array = native
        return array

    def wrap(self, native: Native) -> Value:
        """The array itself."""
        array: Array = native
        return array

    def unwrap(self, value: Value) -> Native:
        """The value's array in host memory."""
        return value if isinstance(value, np.ndarray) else value.numpy()

    def planes(self, pixels: Native, layout: Layout | None) -> Native:
        """Float planes of pixels."""
        return to_planes(pixels) if layout else np.ascontiguousarray(pixels, np.float32)

    def crop(self, values: Native, index: tuple[slice, ...]) -> Native:
        """A part of an array, contiguous; a view where that is contiguous already."""
        return np.ascontiguousarray(values[index])

    def reduced(self, lattice: Native, rows: Axis, cols: Axis) -> Native:
        """Antialiased resampling, in bands that fit the cache."""
        count, channels, height, width = lattice.shape
        planes = lattice.reshape(-1, height, width).transpose(1, 2, 0)
        small = imresize(planes, rows, cols, "replicate")
        made = np.ascontiguousarray(small.transpose(2, 0, 1))
        return made.reshape(count, channels, *made.shape[1:])

    def settled(self, planes: Native, alpha: Array, flat: Array, ys: Array, xs: Array) -> Native:
        """Two planes with the second replaced where alpha is flat."""
        at = np.ix_(ys, xs)
        exact = alpha[:, at[0], at[1]]
        return np.stack([planes[0], np.where(flat[at], exact, planes[1])])

    def with_opacity(self, planes: Native, opacity: float) -> Native:
        """Planes with a second one of a constant value behind them."""
        return np.concatenate([planes, np.full_like(planes, opacity)])

    def weighted(self, planes: Native, rows: Array, cols: Array) -> Native:
        """Planes times a weight per row and per column."""
        return planes * (rows[:, None] * cols)

    def finite(self, planes: Native) -> Native:
        """Whether all are numbers.

        A sum is NaN or infinite if any element is; it needs no mask of the array's size. Only
        where it overflows in float32 is the slower sum in float64 needed.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(planes.sum()) or np.isfinite(planes.sum(dtype=np.float64)))

    def pixels(self, planes: Native, layout: Layout | None) -> Native:
        """Finished pixels of planes that :meth:`finite` has seen."""
        if layout is None:
            # The caller gets them, and may want to change them.
            return planes if planes.flags.writeable else planes.copy()
        return from_planes(planes, layout, finite=True)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Native:
        """A new array of any content."""
        return np.empty(tuple(shape), dtype)

    def concatenated(self, parts: Sequence[Native], axis: int) -> Native:
        """Arrays joined along an axis."""
        return np.concatenate(list(parts), axis)

    def copied(self, native: Native) -> Native:
        """A copy of its own."""
        return native.copy()


HOST: Final[Arrays] = HostArrays()
"""The arrays of every session that says nothing else."""


def arrays_of(session: Session) -> Arrays:
    """Arithmetic where a session keeps its values: its ``arrays``, if it keeps them on a device."""
    found: Arrays = getattr(session, "arrays", HOST)
    return found
