"""Arithmetic on pixels with PyTorch, on any device it knows."""

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

_PINNED_FROM = 1 << 16
"""Bytes from which a copy through pinned memory is worth its preparation."""


class TorchArrays(DeviceArrays):
    """PyTorch tensors on one device.

    Copies to a GPU go through pinned memory, queued on the current stream; PyTorch keeps that
    memory for the next copy.
    """

    def __init__(self, device: str) -> None:
        import array_api_compat.torch as xp
        import torch

        super().__init__(xp, device)
        self._torch = torch
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"

    def upload(self, array: Array) -> Native:
        """Bring an array to the device."""
        torch = self._torch
        with _memory(torch):
            tensor = torch.from_numpy(np.ascontiguousarray(array))
            if self._cuda and array.nbytes >= _PINNED_FROM:
                return tensor.pin_memory().to(self._device, non_blocking=True)
            return tensor.to(self._device)

    def download(self, native: Native) -> Array:
        """Bring a tensor to host memory; on the processor it is that memory itself."""
        torch = self._torch
        with _memory(torch):
            if not self._cuda:
                array: Array = native.detach().cpu().contiguous().numpy()
                return array
            target = torch.empty(native.shape, dtype=native.dtype, pin_memory=True)
            target.copy_(native, non_blocking=True)
            self.synchronize()
            pinned: Array = target.numpy()
            return pinned

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Native:
        """A new tensor of any content."""
        with _memory(self._torch):
            kind = getattr(self._torch, np.dtype(dtype).name)
            return self._torch.empty(tuple(shape), dtype=kind, device=self._device)

    def address(self, native: Native) -> int:
        """Address of the first element."""
        return int(native.data_ptr())

    @property
    def stream(self) -> int:
        """The current stream of the calling thread."""
        return int(self._torch.cuda.current_stream(self._device).cuda_stream) if self._cuda else 0

    def synchronize(self) -> None:
        """Wait for the current stream."""
        if self._cuda:
            self._torch.cuda.current_stream(self._device).synchronize()

    def selected(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the GPU the calling thread's current one."""
        return self._torch.cuda.device(self._device) if self._cuda else contextlib.nullcontext()

    def dense(self, native: Native) -> Native:
        """The tensor itself if it is contiguous, else a contiguous copy."""
        with _memory(self._torch):
            return native.contiguous()


class _memory:  # noqa: N801 (a context manager that is used like a function)
    """Turns PyTorch's errors about memory into ours."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._torch.OutOfMemoryError):
            raise OutOfMemoryError(f"PyTorch ran out of memory: {error}") from error


@cache
def torch_arrays(device: str) -> TorchArrays:
    """The arrays of a device of PyTorch, made once."""
    return TorchArrays(device)
