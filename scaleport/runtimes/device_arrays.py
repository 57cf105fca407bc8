"""Arithmetic on pixels that lie on a device, written once for every library of arrays.

The operations are those of the Python array API standard, which ``array_api_compat`` gives
PyTorch, CuPy and numpy alike. What differs between libraries (copies, addresses, streams) is in
the subclasses.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from scaleport.aliases import Array
from scaleport.grid import Axis
from scaleport.imaging.convert import Layout
from scaleport.imaging.resample import axis_taps
from scaleport.runtimes.arrays import Native
from scaleport.runtimes.base import Value


class DeviceTensor:
    """An array on a device as a value between sessions."""

    def __init__(self, native: Native, arrays: DeviceArrays) -> None:
        self.native = native
        self._arrays = arrays

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions."""
        return tuple(int(length) for length in self.native.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(str(self.native.dtype).removeprefix("torch."))

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def device(self) -> str:
        """``cuda:0``, or what the library calls its device."""
        return self._arrays.device

    def numpy(self) -> Array:
        """The elements in host memory."""
        return self._arrays.download(self.native)

    def __dlpack__(self, **options: Any) -> Any:
        return self.native.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.native.__dlpack_device__()

    def __repr__(self) -> str:
        return f"DeviceTensor({self.dtype} {list(self.shape)} on {self.device})"


class DeviceArrays(abc.ABC):
    """Arrays of one device, in one library.

    Args:
        xp: the library's namespace of ``array_api_compat``.
        device: what the program calls the device.
    """

    on_host = False

    def __init__(self, xp: ModuleType, device: str) -> None:
        self._xp: Any = xp
        self.device = device

    @abc.abstractmethod
    def upload(self, array: Array) -> Native:
        """Bring an array from host memory."""

    @abc.abstractmethod
    def download(self, native: Native) -> Array:
        """Bring an array to host memory; waits for what makes it."""

    @abc.abstractmethod
    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Native:
        """A new array of any content."""

    @abc.abstractmethod
    def address(self, native: Native) -> int:
        """Address of the first element; the array is contiguous."""

    @property
    @abc.abstractmethod
    def stream(self) -> int:
        """Address of the stream that this thread's operations are queued on."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait for what this thread has queued."""

    def selected(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the device the calling thread's current one while a ``with`` block runs."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def dense(self, native: Native) -> Native:
        """The array itself if it is contiguous, else a contiguous copy."""

    def adopt(self, shared: Any) -> Native:
        """Memory of another library as an array, through DLPack, without a copy."""
        return self._xp.from_dlpack(shared)

    def wrap(self, native: Native) -> Value:
        """The array as a value that sessions take."""
        return DeviceTensor(native, self)

    def unwrap(self, value: Value) -> Native:
        """A value's array; one in host memory is brought here."""
        if isinstance(value, DeviceTensor):
            return value.native
        return self.upload(value if isinstance(value, np.ndarray) else value.numpy())

    def planes(self, pixels: Native, layout: Layout | None) -> Native:
        """Float planes of pixels, as :func:`scaleport.imaging.convert.to_planes` makes them."""
        xp = self._xp
        if layout is None:
            return self.dense(xp.astype(pixels, xp.float32))
        values = xp.astype(pixels, xp.float32)
        if layout.channels == 0:
            values = values[..., None]
        if layout.dtype.kind == "u":
            values = values / float(np.iinfo(layout.dtype).max)
        parts = [values[..., :-1], values[..., -1:]] if layout.has_alpha else [values]
        return self.dense(
            xp.stack(
                [
                    xp.broadcast_to(xp.permute_dims(part, (2, 0, 1)), (3, *values.shape[:2]))
                    for part in parts
                ],
                axis=0,
            )
        )

    def crop(self, values: Native, index: tuple[slice, ...]) -> Native:
        """A part of an array, contiguous."""
        return self.dense(values[index])

    def reduced(self, lattice: Native, rows: Axis, cols: Axis) -> Native:
        """Antialiased resampling, tap by tap in the order of ``imresize``."""
        for dim, axis in ((2, rows), (3, cols)):
            place, weight = axis_taps(axis, "replicate")
            lattice = self._summed(lattice, place, weight, dim)
        return lattice

    def _summed(self, values: Native, place: Array, weight: Array, dim: int) -> Native:
        xp = self._xp
        shape = [1] * 4
        shape[dim] = -1
        total = None
        for tap in range(place.shape[1]):
            column = weight[:, tap].astype(np.float32)
            if not column.any():
                continue
            taken = xp.take(values, self.upload(np.ascontiguousarray(place[:, tap])), axis=dim)
            term = taken * xp.reshape(self.upload(column), tuple(shape))
            total = term if total is None else total + term
        return total

    def settled(self, planes: Native, alpha: Array, flat: Array, ys: Array, xs: Array) -> Native:
        """Two planes with the second replaced where alpha is flat."""
        xp = self._xp
        rows, cols = self.upload(ys.astype(np.int64)), self.upload(xs.astype(np.int64))

        def at(values: Native) -> Native:
            return xp.take(xp.take(values, rows, axis=-2), cols, axis=-1)

        known = at(self.upload(np.ascontiguousarray(alpha)))
        keep = at(self.upload(np.ascontiguousarray(flat)))
        return xp.stack([planes[0], xp.where(keep, known, planes[1])], axis=0)

    def with_opacity(self, planes: Native, opacity: float) -> Native:
        """Planes with a second one of a constant value behind them."""
        return self._xp.concat([planes, self._xp.full_like(planes, float(opacity))], axis=0)

    def weighted(self, planes: Native, rows: Array, cols: Array) -> Native:
        """Planes times a weight per row and per column."""
        return planes * (self.upload(rows)[:, None] * self.upload(cols))

    def finite(self, planes: Native) -> Native:
        """Whether all are numbers, as an array of one bool on the device."""
        return self._xp.all(self._xp.isfinite(planes))

    def pixels(self, planes: Native, layout: Layout | None) -> Native:
        """Finished pixels, as :func:`scaleport.imaging.convert.from_planes` makes them."""
        if layout is None:
            return planes
        xp = self._xp
        colours = planes[0] if layout.channels >= 3 else self._gray(planes[0])
        values = (
            xp.concat([colours, self._gray(planes[1])], axis=0) if layout.has_alpha else colours
        )
        if layout.dtype.kind == "u":
            top = float(np.iinfo(layout.dtype).max)
            values = xp.clip(xp.round(values * top), 0.0, top)
        values = xp.permute_dims(values, (1, 2, 0)) if layout.channels else values[0]
        return self.dense(self._cast(values, layout.dtype))

    def _cast(self, values: Native, dtype: np.dtype[Any]) -> Native:
        return self._xp.astype(values, getattr(self._xp, dtype.name))

    def _gray(self, plane: Native) -> Native:
        return self._xp.mean(plane, axis=0, keepdims=True)

    def concatenated(self, parts: Sequence[Native], axis: int) -> Native:
        """Arrays joined along an axis."""
        return self._xp.concat(list(parts), axis=axis)

    def copied(self, native: Native) -> Native:
        """A copy of its own."""
        return self._xp.asarray(native, copy=True)
