"""The little of the CUDA runtime that engines need: device, stream, memory, errors."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleport.errors import BackendError, OutOfMemoryError
from scaleport.runtimes.base import Array

MODULE = "cuda.bindings.runtime"


@dataclass(frozen=True)
class Device:
    """One NVIDIA GPU."""

    index: int
    name: str
    compute_capability: str


def runtime() -> Any:
    """The CUDA runtime bindings.

    Raises:
        BackendError: if the package is not installed.
    """
    try:
        return importlib.import_module(MODULE)
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(
            f"TensorRT needs the package cuda-python to reach the GPU: {error}"
        ) from error


def check(cuda: Any, result: tuple[Any, ...], what: str) -> Any:
    """The value of a CUDA call.

    Args:
        cuda: the bindings of :func:`runtime`.
        result: what the call returned, ``(error, value, ...)``.
        what: what was tried, for the message: ``copy an input to the GPU``.

    Returns:
        None, the one value, or the tuple of values.

    Raises:
        OutOfMemoryError: if GPU memory ran out.
        BackendError: for any other CUDA error.
    """
    code, *values = result
    if code == cuda.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else tuple(values) or None
    # The failed call also left its code behind, where TensorRT would take it for its own.
    cuda.cudaGetLastError()
    _, text = cuda.cudaGetErrorString(code)
    reason = text.decode() if isinstance(text, bytes) else str(text)
    if code == cuda.cudaError_t.cudaErrorMemoryAllocation:
        raise OutOfMemoryError(f"the GPU ran out of memory trying to {what}; try a smaller tile")
    raise BackendError(f"CUDA could not {what}: {reason} (error {int(code)})")


def find_device(index: int = 0) -> Device:
    """Describe a GPU; takes nothing of its memory.

    Raises:
        BackendError: if there is no driver, no GPU, or none of this index.
    """
    cuda = runtime()
    try:
        count = check(cuda, cuda.cudaGetDeviceCount(), "find an NVIDIA GPU")
        if not 0 <= index < count:
            raise BackendError(f"there is no GPU {index}, this machine has {count}")
        properties = check(cuda, cuda.cudaGetDeviceProperties(index), f"describe GPU {index}")
    except RuntimeError as error:
        # The bindings raise where the driver lacks a function altogether.
        raise BackendError(f"CUDA could not find an NVIDIA GPU: {error}") from error
    name = properties.name
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return Device(index, text.rstrip("\0"), f"{properties.major}.{properties.minor}")


def use_device(cuda: Any, index: int) -> None:
    """Make a GPU the calling thread's current one."""
    check(cuda, cuda.cudaSetDevice(index), f"use GPU {index}")


class Stream:
    """A CUDA stream of its own, released by :meth:`close`."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stream = check(cuda, cuda.cudaStreamCreate(), "create a stream")

    @property
    def handle(self) -> int:
        """The stream's address, as TensorRT takes it."""
        return int(self._stream)

    def upload(self, source: Array, target: int) -> None:
        """Queue a copy of a contiguous host array to device address ``target``."""
        self._copy(target, source.ctypes.data, source.nbytes, "cudaMemcpyHostToDevice")

    def download(self, source: int, target: Array) -> None:
        """Queue a copy from device address ``source`` into a contiguous host array."""
        self._copy(target.ctypes.data, source, target.nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        kinds = self._cuda.cudaMemcpyKind
        result = self._cuda.cudaMemcpyAsync(
            target, source, size, getattr(kinds, kind), self._stream
        )
        check(self._cuda, result, "copy between host and GPU")

    def synchronize(self) -> None:
        """Wait for everything queued; errors of kernels surface here."""
        check(self._cuda, self._cuda.cudaStreamSynchronize(self._stream), "run the graph")

    def close(self) -> None:
        """Release the stream; does nothing the second time."""
        stream, self._stream = self._stream, None
        if stream is not None:
            # An error here belongs to work that has already been reported.
            self._cuda.cudaStreamDestroy(stream)


class DeviceBuffer:
    """Device memory that grows when asked for more and is reused otherwise."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._address = 0
        self._size = 0

    def reserve(self, size: int) -> int:
        """Address of at least ``size`` bytes; the contents do not survive growth.

        Raises:
            OutOfMemoryError: if there is not that much; the buffer is empty then.
        """
        size = max(size, 1)
        if size > self._size:
            # Freed first: holding both would need twice the memory at the very limit.
            self.close()
            megabytes = np.ceil(size / 2**20)
            result = self._cuda.cudaMalloc(size)
            self._address = int(check(self._cuda, result, f"allocate {megabytes:.0f} MiB"))
            self._size = size
        return self._address

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def close(self) -> None:
        """Release the memory; the buffer can be used again."""
        address, self._address, self._size = self._address, 0, 0
        if address:
            self._cuda.cudaFree(address)
