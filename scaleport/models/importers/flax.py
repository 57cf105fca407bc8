"""Weights that JAX programs pickled: read without running code, under the names of torch's layers.

A pickle can hold any code. Here its classes are never looked up: arrays and mappings have builders
of their own, and everything else, such as the state of an optimiser, becomes an object that holds
nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaleport.errors import ArtifactError

SUFFIXES = (".pkl", ".pickle")
_MODEL = "model"
_PARAMETERS = "params"
_FLOATS = (np.float16, np.float32, np.float64)


class _Unknown:
    """Stands for an object of any other class."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Nothing is kept."""

    def __call__(self, *given: Any) -> _Unknown:
        """Nothing is called."""
        return self

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""

    def append(self, item: Any) -> None:
        """Nothing is kept."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is kept."""


def _plain(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype)
    if found.hasobject:
        raise pickle.UnpicklingError("an array of objects")
    return found


def _empty(kind: Any, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """What numpy fills with the state that comes next in the file."""
    del kind, dtype
    made: np.ndarray[Any, Any] = np.ndarray(shape, np.uint8)
    return made


def _scalar(dtype: Any, content: bytes = b"") -> Any:
    return np.frombuffer(content, _plain(dtype))[0]


def _array(content: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray[Any, Any]:
    found = np.frombuffer(bytes(content), _plain(dtype))
    shaped: np.ndarray[Any, Any] = found.reshape(shape, order="F" if order == "F" else "C")
    return shaped


def _jax_array(build: Any, given: Any, state: Any, kind: Any) -> Any:
    """An array of JAX, which pickles itself as one of numpy and that one's state."""
    del kind
    if build is not _empty:
        raise pickle.UnpicklingError("an array in an unknown form")
    found = _empty(*given)
    found.__setstate__(state)
    return found


_BUILDERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): dict,
    ("flax.core.frozen_dict", "FrozenDict"): dict,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
}
for _core in ("numpy.core", "numpy._core"):
    _BUILDERS[f"{_core}.multiarray", "_reconstruct"] = _empty
    _BUILDERS[f"{_core}.multiarray", "scalar"] = _scalar
    _BUILDERS[f"{_core}.numeric", "_frombuffer"] = _array


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A builder for what we know, an empty object for anything else."""
        return _BUILDERS.get((module, name), _Unknown)


def read_flax(path: Path) -> dict[str, Any]:
    """The weights in a pickle of a JAX program, and the plain values beside them.

    Returns:
        ``sd``: weights by dotted name, as torch has them: kernels are ``weight``, output channels
        first, and the scale of a norm is ``weight`` too. Beside it the file's words and numbers.

    Raises:
        ArtifactError: if the file cannot be read, or holds no nested mapping of arrays.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle fails anywhere in the unpickler.
        raise ArtifactError(f"{path} is no pickle of arrays: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds no weights by name")
    nested = content.get(_MODEL, content)
    if isinstance(nested, dict) and isinstance(nested.get(_PARAMETERS), dict):
        nested = nested[_PARAMETERS]
    if not isinstance(nested, dict) or not nested:
        raise ArtifactError(f"{path} holds no weights by name")
    weights = {}
    for name, value in _leaves(nested, ""):
        key, tensor = _as_torch(path, name, value)
        weights[key] = tensor
    plain = {k: v for k, v in content.items() if isinstance(v, (str, int, float, bool))}
    return {**plain, "sd": weights}


def _leaves(nested: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _as_torch(path: Path, name: str, value: Any) -> tuple[str, Tensor]:
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic, float)) else None
    if array is None or array.dtype not in _FLOATS:
        raise ArtifactError(f"{path}: its entry {name} is no array of floating-point numbers")
    tensor = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    parent, _, last = name.rpartition(".")
    if last not in ("kernel", "scale"):
        return name, tensor
    if last == "kernel":
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.dim())
        if axes is None:
            raise ArtifactError(f"{path}: its entry {name} is the kernel of no known layer")
        tensor = tensor.permute(axes).contiguous()
    return f"{parent}.weight" if parent else "weight", tensor
