"""Which library of arrays reaches an NVIDIA GPU here, and what a GPU is best given at once."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

from scaleport.runtimes.base import Work
from scaleport.runtimes.device_arrays import DeviceArrays

GPU_WORK: Final = Work(tile=1024, map_bytes=256 << 20, fewest_pixels=1 << 16, equal_tiles=True)
"""Tiles that keep a GPU busy. An image of 1024x1024 takes about 3 GB with 64 channels."""


def gpu_arrays(index: int) -> DeviceArrays | None:
    """Arrays of a GPU: PyTorch's where it is loaded already, else CuPy's, else PyTorch's.

    None where neither is installed, or neither reaches the GPU.
    """
    loaded = "torch" in sys.modules
    for name in ("torch", "cupy") if loaded else ("cupy", "torch"):
        if find_spec(name) is None:
            continue
        if name == "torch":
            import torch

            if torch.cuda.is_available():
                from scaleport.runtimes.torch_arrays import torch_arrays

                return torch_arrays(f"cuda:{index}")
        else:
            import cupy

            if cupy.cuda.is_available():
                from scaleport.runtimes.cupy_arrays import cupy_arrays

                return cupy_arrays(index)
    return None
