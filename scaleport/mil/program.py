"""The program in an ``.mlpackage`` as plain Python objects, constants resolved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import ArtifactError
from scaleport.mil.package import Package, Weights, open_package

Value = Array | str | tuple["Value", ...]
"""What an operation reads or writes: a tensor, a text, or several of either."""

# Numbers of the specification's DataType; numpy has no bfloat16 and no 4-bit types.
_TEXT: Final = 2
_TYPES: Final[dict[int, np.dtype[Any]]] = {
    1: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    21: np.dtype(np.int8),
    22: np.dtype(np.int16),
    23: np.dtype(np.int32),
    24: np.dtype(np.int64),
    31: np.dtype(np.uint8),
    32: np.dtype(np.uint16),
    33: np.dtype(np.uint32),
}
_FIELDS: Final = ("floats", "ints", "bools", "longInts", "doubles")
_MAX_ELEMENTS: Final = 1 << 31


@dataclass(frozen=True)
class TensorType:
    """Declared type of a value. -1 is a dynamic dimension; ``shape`` None an unknown rank."""

    dtype: np.dtype[Any] | None
    """None where the value is a text or of a type that numpy does not have."""
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Reference:
    """The name of a value that an operation reads."""

    name: str


Operand = Reference | Value | tuple["Operand", ...]


@dataclass(frozen=True)
class Operation:
    """One operation: its kind, its inputs by parameter name, its outputs in order."""

    kind: str
    inputs: dict[str, Operand]
    outputs: tuple[tuple[str, TensorType], ...]

    @property
    def name(self) -> str:
        """The name of its first output."""
        return self.outputs[0][0] if self.outputs else self.kind

    def reads(self) -> Iterable[str]:
        """Names of the values it reads."""
        for operand in self.inputs.values():
            for part in operand if isinstance(operand, tuple) else (operand,):
                if isinstance(part, Reference):
                    yield part.name


@dataclass(frozen=True)
class Program:
    """The main function of an ML program. Constants are not operations any more."""

    label: str
    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    constants: dict[str, Value]
    operations: tuple[Operation, ...]


def read_program(path: Path) -> Program:
    """Read the program of an ``.mlpackage``.

    Args:
        path: the package directory.

    Raises:
        ArtifactError: if the package is damaged, or refers to values or weights it lacks.
        BackendError: if coremltools, whose schema is needed, is not installed.
    """
    return _Reader(open_package(path)).read()


class _Reader:
    def __init__(self, package: Package) -> None:
        self._package = package
        self._label = package.path.name
        self._weights: dict[str, Weights] = {}

    def read(self) -> Program:
        functions = self._package.model.mlProgram.functions
        if len(functions) != 1:
            raise ArtifactError(f"{self._label}: has {len(functions)} functions, not one")
        function = next(iter(functions.values()))
        block = function.block_specializations.get(function.opset)
        if block is None:
            raise ArtifactError(f"{self._label}: has no program for opset {function.opset!r}")
        inputs = {item.name: self._type(item.type) for item in function.inputs}
        types: dict[str, TensorType] = dict(inputs)
        constants: dict[str, Value] = {}
        operations = []
        for message in block.operations:
            operation = self._operation(message, types)
            if operation.kind == "const":
                constants[operation.name] = self._value(message.attributes["val"])
            else:
                operations.append(operation)
            types.update(operation.outputs)
        outputs = {}
        for name in block.outputs:
            if name not in types:
                raise ArtifactError(f"{self._label}: output {name!r} is never computed")
            outputs[name] = types[name]
        return Program(self._label, inputs, outputs, constants, tuple(operations))

    def _operation(self, message: Any, known: dict[str, TensorType]) -> Operation:
        outputs = tuple((item.name, self._type(item.type)) for item in message.outputs)
        if not outputs:
            raise ArtifactError(f"{self._label}: an operation {message.type!r} has no output")
        inputs: dict[str, Operand] = {}
        for parameter, argument in message.inputs.items():
            parts: list[Operand] = []
            for binding in argument.arguments:
                if binding.WhichOneof("binding") == "value":
                    parts.append(self._value(binding.value))
                elif binding.name in known:
                    parts.append(Reference(binding.name))
                else:
                    raise ArtifactError(f"{self._label}: {binding.name!r} is read but not computed")
            # A list parameter of one element looks like a plain one; operations accept both.
            inputs[parameter] = parts[0] if len(parts) == 1 else tuple(parts)
        if message.type.startswith("constexpr_"):
            # What such an operation reads is constant, and stored like that of "const".
            for parameter, value in message.attributes.items():
                if parameter != "name":
                    inputs[parameter] = self._value(value)
        return Operation(message.type, inputs, outputs)

    def _type(self, message: Any) -> TensorType:
        if message.WhichOneof("type") != "tensorType":
            return TensorType(None, None)
        tensor = message.tensorType
        if tensor.rank < 0:
            return TensorType(_TYPES.get(tensor.dataType), None)
        shape = []
        for dimension in tensor.dimensions:
            fixed = dimension.WhichOneof("dimension") == "constant"
            shape.append(int(dimension.constant.size) if fixed else -1)
        return TensorType(_TYPES.get(tensor.dataType), tuple(shape))

    def _value(self, message: Any) -> Value:
        kind = message.WhichOneof("value")
        if kind == "blobFileValue":
            return self._from_file(message)
        if kind != "immediateValue":
            raise ArtifactError(f"{self._label}: a constant has no value")
        immediate = message.immediateValue
        kind = immediate.WhichOneof("value")
        if kind == "tuple":
            return tuple(self._value(item) for item in immediate.tuple.values)
        if kind != "tensor":
            raise ArtifactError(f"{self._label}: a constant of kind {kind!r} is not supported")
        return self._tensor(message, immediate.tensor)

    def _tensor(self, message: Any, tensor: Any) -> Value:
        field = tensor.WhichOneof("value")
        if field == "strings":
            texts = tuple(str(text) for text in tensor.strings.values)
            return texts[0] if not message.type.tensorType.dimensions and texts else texts
        dtype, shape = self._fixed(message)
        if field == "bytes":
            raw = tensor.bytes.values
            if len(raw) != math.prod(shape) * dtype.itemsize:
                raise ArtifactError(f"{self._label}: a constant is not of its declared size")
            return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        values = getattr(tensor, field).values if field in _FIELDS else ()
        if len(values) != math.prod(shape):
            raise ArtifactError(f"{self._label}: a constant is not of its declared size")
        try:
            return np.array(values, dtype).reshape(shape)
        except OverflowError:
            raise ArtifactError(f"{self._label}: a constant is beyond its type {dtype}") from None

    def _from_file(self, message: Any) -> Array:
        dtype, shape = self._fixed(message)
        file = message.blobFileValue
        if file.fileName not in self._weights:
            self._weights[file.fileName] = self._package.weights(file.fileName)
        values = self._weights[file.fileName].read(file.offset, dtype, math.prod(shape))
        return values.reshape(shape)

    def _fixed(self, message: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
        declared = self._type(message.type)
        if declared.dtype is None or declared.shape is None or -1 in declared.shape:
            raise ArtifactError(f"{self._label}: a constant is of an unknown type or shape")
        count: int = math.prod(declared.shape)
        if count > _MAX_ELEMENTS:
            raise ArtifactError(f"{self._label}: a constant is too large")
        return declared.dtype, declared.shape
