"""Runs a program operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import (
    ArtifactError,
    BackendError,
    OutOfMemoryError,
    ScaleportError,
    UnsupportedOpError,
)

# The modules of operations fill the table as they are imported.
from scaleport.mil import (
    ops_elementwise,
    ops_linear,
    ops_reduce,
    ops_resample,
    ops_shape,
)
from scaleport.mil.call import OPERATIONS, Call
from scaleport.mil.program import (
    Operand,
    Operation,
    Program,
    Reference,
    TensorType,
    Value,
)
from scaleport.runtimes.base import checked
from scaleport.tensor import TensorSpec, dimension, element_type

Observer = Callable[[Operation, str, Array], None]

__all__ = ["Evaluator", "ops_elementwise", "ops_linear", "ops_reduce", "ops_resample", "ops_shape"]


class Evaluator:
    """A program ready to run.

    Every operation computes in the types that the program declares. Float16 results are rounded
    after each operation; sums (convolutions, matrix products, normalisations) are accumulated in
    float32 and rounded once, as Apple's hardware roughly does.

    Args:
        program: the program.

    Raises:
        UnsupportedOpError: if an operation is not known.
        ArtifactError: if an input or output is not a tensor.
    """

    def __init__(self, program: Program) -> None:
        kinds = {operation.kind for operation in program.operations}
        unknown = sorted(kinds - set(OPERATIONS))
        if unknown:
            raise UnsupportedOpError(
                f"{program.label}: the MIL evaluator does not know {', '.join(unknown)}"
            )
        self.program = program
        self.inputs = _specs(program, program.inputs)
        self.outputs = _specs(program, program.outputs)
        self._dead = _last_uses(program)

    def run(self, feeds: Mapping[str, Array], observe: Observer | None = None) -> dict[str, Array]:
        """Evaluate the program.

        Args:
            feeds: one array per input, of the declared type and shape.
            observe: called with every operation, and the name and value of each of its results.

        Returns:
            One array per output. Intermediate values are freed after their last use.

        Raises:
            UsageError: if a feed is missing, unknown or of the wrong type or shape.
            ArtifactError: if an operation's result is not of its declared type.
            BackendError: if an operation cannot be evaluated on these shapes.
            OutOfMemoryError: if memory ran out.
        """
        known: dict[str, Value] = dict(checked(feeds, self.inputs))
        with np.errstate(all="ignore"):
            for operation, dead in zip(self.program.operations, self._dead, strict=True):
                self._step(operation, known)
                for name, _ in operation.outputs if observe is not None else ():
                    value = known[name]
                    if observe is not None and isinstance(value, np.ndarray):
                        observe(operation, name, value)
                for name in dead:
                    known.pop(name, None)
        values = {spec.name: self._resolve(Reference(spec.name), known) for spec in self.outputs}
        return {name: np.ascontiguousarray(value) for name, value in values.items()}

    def _step(self, operation: Operation, known: dict[str, Value]) -> None:
        values = {key: self._resolve(item, known) for key, item in operation.inputs.items()}
        try:
            result = OPERATIONS[operation.kind](Call(operation, values))
        except ScaleportError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"{self.program.label}: out of memory in {operation.kind} {operation.name!r}; "
                "use smaller tiles"
            ) from error
        except (ValueError, IndexError, TypeError, ArithmeticError) as error:
            raise BackendError(
                f"{self.program.label}: {operation.kind} {operation.name!r} failed: {error}"
            ) from error
        parts = result if isinstance(result, tuple) else (result,)
        if len(parts) != len(operation.outputs):
            raise ArtifactError(
                f"{self.program.label}: {operation.kind} {operation.name!r} gives {len(parts)} "
                f"results, {len(operation.outputs)} are declared"
            )
        for (name, declared), part in zip(operation.outputs, parts, strict=True):
            array = np.asarray(part)
            if not _fits(array, declared):
                raise ArtifactError(
                    f"{self.program.label}: {operation.kind} {name!r} gives {_describe(array)}, "
                    f"{_declared(declared)} is declared"
                )
            known[name] = array

    def _resolve(self, operand: Operand, known: Mapping[str, Value]) -> Value:
        if isinstance(operand, Reference):
            if operand.name in known:
                return known[operand.name]
            if operand.name in self.program.constants:
                return self.program.constants[operand.name]
            raise ArtifactError(f"{self.program.label}: {operand.name!r} is read but not computed")
        if isinstance(operand, tuple):
            return tuple(self._resolve(part, known) for part in operand)
        return operand


def _specs(program: Program, values: Mapping[str, TensorType]) -> tuple[TensorSpec, ...]:
    specs = []
    for name, declared in values.items():
        if declared.dtype is None or declared.shape is None:
            raise ArtifactError(f"{program.label}: {name!r} is not a tensor of a known rank")
        dtype = element_type(declared.dtype.name)
        if dtype is None:
            raise ArtifactError(f"{program.label}: {name!r} is a tensor of {declared.dtype}")
        specs.append(TensorSpec(name, dtype, tuple(map(dimension, declared.shape))))
    return tuple(specs)


def _last_uses(program: Program) -> list[tuple[str, ...]]:
    """Per operation, the values that nothing reads after it."""
    seen = set(program.outputs) | set(program.constants)
    dead: list[tuple[str, ...]] = []
    for operation in reversed(program.operations):
        names = {*operation.reads(), *(name for name, _ in operation.outputs)} - seen
        dead.append(tuple(names))
        seen |= names
    return dead[::-1]


def _fits(array: Array, declared: TensorType) -> bool:
    if declared.dtype is not None and array.dtype != declared.dtype:
        return False
    if declared.shape is None:
        return True
    return array.ndim == len(declared.shape) and all(
        want in (-1, have) for want, have in zip(declared.shape, array.shape, strict=True)
    )


def _describe(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _declared(declared: TensorType) -> str:
    shape = "" if declared.shape is None else str(["?" if d < 0 else d for d in declared.shape])
    return f"{declared.dtype}{shape}".replace("'", "")
