"""Types of numpy arrays, for annotations: one name each, wherever it is needed."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
"""An array of any type; docstrings say which."""
Uint8Array: TypeAlias = npt.NDArray[np.uint8]
Int32Array: TypeAlias = npt.NDArray[np.int32]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]

HostFeeds: TypeAlias = dict[str, Array]
"""Inputs of a graph by name, in host memory."""
