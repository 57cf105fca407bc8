"""Arithmetic on pixels with CuPy, for programs with an NVIDIA GPU and without PyTorch.

CuPy keeps freed memory in a pool for the next call, and copies asynchronously where the host's
memory is pinned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import OutOfMemoryError
from scaleport.runtimes.arrays import Native
from scaleport.runtimes.device_arrays import DeviceArrays


class CupyArrays(DeviceArrays):
    """CuPy arrays on one GPU."""

    def __init__(self, index: int) -> None:
        import array_api_compat.cupy as xp
        import cupy

        super().__init__(xp, f"cuda:{index}")
        self._cupy: Any = cupy
        self._gpu = cupy.cuda.Device(index)

    def upload(self, array: Array) -> Native:
        """Bring an array to the GPU."""
        return self._allocated(lambda: self._cupy.asarray(np.ascontiguousarray(array)))

    def download(self, native: Native) -> Array:
        """Bring an array to host memory; waits for it."""
        array: Array = self._cupy.asnumpy(native)
        return array

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Native:
        """A new array of any content."""
        return self._allocated(lambda: self._cupy.empty(tuple(shape), dtype))

    def _allocated(self, make: Any) -> Native:
        with self._gpu:
            try:
                return make()
            except self._cupy.cuda.memory.OutOfMemoryError as error:
                raise OutOfMemoryError(f"the GPU ran out of memory: {error}") from error

    def address(self, native: Native) -> int:
        """Address of the first element."""
        return int(native.data.ptr)

    @property
    def stream(self) -> int:
        """The current stream of the calling thread."""
        with self._gpu:
            return int(self._cupy.cuda.get_current_stream().ptr)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        with self._gpu:
            self._cupy.cuda.get_current_stream().synchronize()

    def selected(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the GPU the calling thread's current one."""
        gpu: contextlib.AbstractContextManager[Any] = self._gpu
        return gpu

    def dense(self, native: Native) -> Native:
        """The array itself if it is contiguous, else a contiguous copy."""
        return self._cupy.ascontiguousarray(native)


@cache
def cupy_arrays(index: int) -> CupyArrays:
    """The arrays of a GPU, made once."""
    return CupyArrays(index)
