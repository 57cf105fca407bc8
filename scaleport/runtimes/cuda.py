"""Finding NVIDIA GPUs through the CUDA runtime, without taking any of their memory."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from scaleport.errors import BackendError, OutOfMemoryError

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
