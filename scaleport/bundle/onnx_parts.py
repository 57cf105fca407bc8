"""The parts of an ONNX file that say what runs and which other files are read.

They are read with protobuf alone, which every ONNX runtime brings: a bundle must be checked where
the package ``onnx`` is not installed. Field numbers are those of ``onnx.proto``; all other fields
are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from scaleport.errors import ArtifactError, BackendError

# Message -> field -> (number, type, repeated).
_FIELDS: Final[dict[str, dict[str, tuple[int, str, bool]]]] = {
    "Entry": {"key": (1, "bytes", False), "value": (2, "bytes", False)},
    "Tensor": {"name": (8, "bytes", False), "external": (13, "Entry", True)},
    "Sparse": {"values": (1, "Tensor", False), "indices": (2, "Tensor", False)},
    "Attribute": {
        "t": (5, "Tensor", False),
        "g": (6, "Graph", False),
        "tensors": (10, "Tensor", True),
        "graphs": (11, "Graph", True),
        "sparse": (22, "Sparse", False),
        "sparses": (23, "Sparse", True),
    },
    "Node": {
        "op_type": (4, "bytes", False),
        "attribute": (5, "Attribute", True),
        "domain": (7, "bytes", False),
    },
    "Graph": {
        "node": (1, "Node", True),
        "initializer": (5, "Tensor", True),
        "sparse": (15, "Sparse", True),
    },
    "Function": {
        "name": (1, "bytes", False),
        "node": (7, "Node", True),
        "domain": (10, "bytes", False),
        "attribute": (11, "Attribute", True),
    },
    "Training": {"initialization": (1, "Graph", False), "algorithm": (2, "Graph", False)},
    "Model": {
        "ir_version": (1, "int64", False),
        "graph": (7, "Graph", False),
        "training": (20, "Training", True),
        "function": (25, "Function", True),
    },
}


@dataclass(frozen=True)
class OnnxParts:
    """What a file asks for.

    Attributes:
        operations: domain and name of every operation that the file does not define itself.
        external: the ``external_data`` entries of every tensor that lies in another file.
    """

    operations: frozenset[tuple[str, str]]
    external: tuple[dict[str, str], ...]


def read_onnx_parts(path: Path) -> OnnxParts:
    """Operations and external data of an ONNX file, those of nested graphs included.

    Raises:
        ArtifactError: if it is no ONNX file, or damaged.
        BackendError: if protobuf is not installed.
        OSError: if it cannot be read.
    """
    model = _model_class()()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # protobuf's error class depends on its implementation
        raise ArtifactError(f"{path.name} is damaged: it is not an ONNX graph") from error
    if model.ir_version < 1 or not model.graph.node:
        raise ArtifactError(f"{path.name} is damaged: it is not an ONNX graph, or an empty one")
    own = {(_text(f.domain), _text(f.name)) for f in model.function}
    used: set[tuple[str, str]] = set()
    external: list[dict[str, str]] = []
    for kind, message in _walk(model):
        if kind == "Node":
            used.add((_text(message.domain), _text(message.op_type)))
        elif kind == "Tensor" and message.external:
            external.append({_text(e.key): _text(e.value) for e in message.external})
    return OnnxParts(frozenset(used - own), tuple(external))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Every message below a model with its kind, without recursion."""
    waiting = [("Model", model)]
    while waiting:
        kind, message = waiting.pop()
        yield kind, message
        for field, (_, of, repeated) in _FIELDS[kind].items():
            if of not in _FIELDS:
                continue
            if repeated:
                waiting.extend((of, inner) for inner in getattr(message, field))
            elif message.HasField(field):
                waiting.append((of, getattr(message, field)))


@lru_cache(maxsize=1)
def _model_class() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise BackendError(
            "ONNX graphs are checked with protobuf: pip install 'scaleport[onnxruntime]'"
        ) from error
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="scaleport_onnx_parts.proto", package="scaleport.onnx_parts", syntax="proto2"
    )
    for kind, fields in _FIELDS.items():
        message = file.message_type.add(name=kind)
        for name, (number, of, repeated) in fields.items():
            field = message.field.add(
                name=name,
                number=number,
                label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
            )
            if of in _FIELDS:
                field.type, field.type_name = types.TYPE_MESSAGE, f".scaleport.onnx_parts.{of}"
            else:
                field.type = types.TYPE_BYTES if of == "bytes" else types.TYPE_INT64
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("scaleport.onnx_parts.Model"))
