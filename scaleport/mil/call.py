"""One call of an operation: typed access to its arguments, and the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import ArtifactError, UnsupportedOpError
from scaleport.mil.program import Operation, Value

Result = Array | tuple[Array, ...]


class Call:
    """The arguments of one operation, by the parameter names of the MIL specification."""

    def __init__(self, operation: Operation, values: Mapping[str, Value]) -> None:
        self.operation = operation
        self._values = values

    def _get(self, name: str) -> Value:
        try:
            return self._values[name]
        except KeyError:
            raise ArtifactError(f"{self} lacks its argument {name!r}") from None

    def array(self, name: str) -> Array:
        """A tensor."""
        value = self._get(name)
        if not isinstance(value, np.ndarray):
            raise ArtifactError(f"argument {name!r} of {self} is not a tensor")
        return value

    def optional(self, name: str) -> Array | None:
        """A tensor, or None if it was left out."""
        return self.array(name) if name in self._values else None

    def arrays(self, name: str) -> list[Array]:
        """A list of tensors."""
        value = self._get(name)
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, np.ndarray) for part in parts):
            raise ArtifactError(f"argument {name!r} of {self} is not a list of tensors")
        return [part for part in parts if isinstance(part, np.ndarray)]

    def ints(self, name: str, default: list[int] | None = None) -> list[int]:
        """A list of integers."""
        if default is not None and name not in self._values:
            return default
        value = self._get(name)
        parts = value if isinstance(value, tuple) else (value,)
        return [int(item) for part in parts for item in np.atleast_1d(np.asarray(part)).tolist()]

    def flags(self, name: str, count: int) -> list[bool]:
        """A list of ``count`` booleans, all false if it was left out."""
        if name not in self._values:
            return [False] * count
        return [bool(item) for item in self.ints(name)]

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer."""
        return default if default is not None and name not in self._values else self.ints(name)[0]

    def number(self, name: str, default: float | None = None) -> float:
        """A number."""
        if default is not None and name not in self._values:
            return default
        return float(self.array(name).item())

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        return bool(self.array(name).item()) if name in self._values else default

    def text(self, name: str, default: str) -> str:
        """A text."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise ArtifactError(f"argument {name!r} of {self} is not a text")
        return value

    def unsupported(self, what: str) -> UnsupportedOpError:
        """The error of a variant that the evaluator does not know."""
        return UnsupportedOpError(f"the MIL evaluator does not know {what} of {self}")

    def __str__(self) -> str:
        return f"{self.operation.kind} {self.operation.name!r}"


Function = Callable[[Call], Result]
OPERATIONS: Final[dict[str, Function]] = {}
"""Every operation that the evaluator knows, by its MIL name."""

_F = TypeVar("_F", bound=Function)


def operation(*kinds: str) -> Callable[[_F], _F]:
    """Enter a function in :data:`OPERATIONS`."""

    def register(function: _F) -> _F:
        for kind in kinds:
            OPERATIONS[kind] = function
        return function

    return register


def widen(x: Array) -> Array:
    """Float16 as float32, to accumulate in; every other type as it is."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def narrow(x: Array, dtype: np.dtype[Any]) -> Array:
    """``x`` in a type, not copied where it has it: the one rounding of a sum."""
    return np.asarray(x, dtype)
