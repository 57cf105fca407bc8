"""What a graph from a stranger may hold, checked before any backend reads it.

A hash only says that a file is the one the manifest means. These checks say that the graph reads no
file that was not hashed, and asks for no operation that would run code from elsewhere.

ONNX files are read with protobuf alone, which every ONNX runtime brings: a bundle must be checked
where the package ``onnx`` is not installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from xml.parsers import expat

from scaleport.bundle.integrity import path_problem
from scaleport.bundle.manifest import FileEntry
from scaleport.errors import ArtifactError, BackendError, UsageError

CUSTOM_OPERATIONS: Final = "custom-ops"
"""What a caller may allow: operations outside of the standard sets of ONNX and OpenVINO."""
ALLOWABLE: Final = (CUSTOM_OPERATIONS,)

MOST_XML_BYTES: Final = 256 << 20
MOST_XML_DEPTH: Final = 256

_STANDARD: Final = ("", "ai.onnx")
_OPSET: Final = re.compile(r"opset[0-9]{1,3}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_PROGRAM: Final = re.compile(rb"[\s\S]{4}ET[0-9]{2}")
"""How ExecuTorch's files begin: an offset, and the identifier of their FlatBuffers schema."""
_ASK: Final = f"allow {CUSTOM_OPERATIONS} if you trust where it comes from"

Files = Mapping[str, FileEntry]
Check = Callable[[Path, str, Files, Collection[str]], None]
# Message -> field -> (number, type, repeated), as in onnx.proto; other fields are skipped.
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


def checked_allowances(allow: Collection[str]) -> frozenset[str]:
    """The allowances of a caller.

    Raises:
        UsageError: if one is unknown.
    """
    if isinstance(allow, str):
        allow = (allow,)
    unknown = sorted(set(allow) - set(ALLOWABLE))
    if unknown:
        raise UsageError(f"unknown allowance {unknown[0]!r}; known: {', '.join(ALLOWABLE)}")
    return frozenset(allow)


def check_graph(
    root: Path, relpath: str, format: str, files: Files, allow: Collection[str]
) -> None:
    """Check the content of one graph; formats of other packages are left to their backend.

    Args:
        root: the bundle directory.
        relpath: the graph's path in it; its bytes are verified.
        format: the manifest's name of its format.
        files: the listed files whose bytes were verified with the graph's own.
        allow: what the caller allows, of :data:`ALLOWABLE`.

    Raises:
        ArtifactError: if it reads files that are not listed, asks for operations that are not
            allowed, or is damaged.
    """
    check = _CHECKS.get(format)
    if check is None:
        return
    try:
        check(root, relpath, files, allow)
    except OSError as error:
        raise ArtifactError(f"cannot read {root / relpath}: {error.strerror or error}") from error


def _check_onnx(root: Path, relpath: str, files: Files, allow: Collection[str]) -> None:
    path = root / relpath
    parts = read_onnx_parts(path)
    for entries in parts.external:
        location = entries.get("location", "")
        beside = f"{relpath.rpartition('/')[0]}/{location}".lstrip("/")
        problem = path_problem(location)
        if problem or beside not in files:
            raise ArtifactError(
                f"{path} reads weights from {location[:200]!r}, which "
                f"{problem or 'is not among the listed files beside it'}; do not use it"
            )
        reach = 0
        for key in ("offset", "length"):
            text = entries.get(key, "0")
            if not _NUMBER.fullmatch(text):
                raise ArtifactError(f"{path} has external weights with {key} {text[:80]!r}")
            reach += int(text)
        if reach > files[beside].bytes:
            raise ArtifactError(f"{path} reads weights beyond the end of {beside}; do not use it")
    foreign = sorted(
        f"{domain}.{name}" for domain, name in parts.operations if domain not in _STANDARD
    )
    if foreign and CUSTOM_OPERATIONS not in allow:
        raise ArtifactError(f"{path} asks for the operation {foreign[0][:200]!r}; {_ASK}")


class _IrReader:
    """Goes through OpenVINO IR as XML, refusing what it never holds."""

    def __init__(self, path: Path, weights: int) -> None:
        self._path = path
        self._weights = weights
        self._depth = 0
        self._layers: list[str] = []
        self.foreign: set[str] = set()

    def read(self) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._declares
        parser.EntityDeclHandler = self._declares
        parser.ProcessingInstructionHandler = self._declares
        try:
            with self._path.open("rb") as file:
                parser.ParseFile(file)
        except (expat.ExpatError, ValueError) as error:
            raise ArtifactError(f"{self._path} is damaged: {error}") from error

    def _declares(self, *_: Any) -> None:
        raise ArtifactError(
            f"{self._path} holds a document type, entity or processing instruction, which no "
            "OpenVINO graph needs; do not use it"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MOST_XML_DEPTH:
            raise ArtifactError(f"{self._path} is nested more than {MOST_XML_DEPTH} deep")
        if self._depth == 1 and name != "net":
            raise ArtifactError(f"{self._path} is damaged: it is no OpenVINO graph")
        if name == "layer":
            version = attributes.get("version", "")
            if not _OPSET.fullmatch(version):
                self.foreign.add(f"{version}.{attributes.get('type', '')}")
            self._layers.append(attributes.get("type", ""))
        elif name == "data" and self._layers and self._layers[-1] == "Const":
            reach = 0
            for key in ("offset", "size"):
                text = attributes.get(key, "")
                if not _NUMBER.fullmatch(text):
                    raise ArtifactError(f"{self._path} has a constant with {key} {text[:80]!r}")
                reach += int(text)
            if reach > self._weights:
                raise ArtifactError(f"{self._path} reads weights beyond the end of its .bin file")

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "layer":
            self._layers.pop()


def _check_openvino(root: Path, relpath: str, files: Files, allow: Collection[str]) -> None:
    if relpath.endswith(".onnx"):  # which OpenVINO reads as it is
        _check_onnx(root, relpath, files, allow)
        return
    path = root / relpath
    weights = str(Path(relpath).with_suffix(".bin").as_posix())
    _refuse_unlisted(root, weights, files)
    if path.stat().st_size > MOST_XML_BYTES:
        raise ArtifactError(f"{path} is larger than {MOST_XML_BYTES >> 20} MiB")
    reader = _IrReader(path, files[weights].bytes if weights in files else 0)
    reader.read()
    if reader.foreign and CUSTOM_OPERATIONS not in allow:
        raise ArtifactError(
            f"{path} asks for the operation {min(reader.foreign)[:200]!r} of an extension; {_ASK}"
        )


def _check_tensorrt(root: Path, relpath: str, files: Files, allow: Collection[str]) -> None:
    del allow  # an engine is opaque; what opens it registers no plug-ins and refuses host code
    _refuse_unlisted(root, f"{relpath}.json", files)


def _check_coreml(root: Path, relpath: str, files: Files, allow: Collection[str]) -> None:
    del allow  # the evaluator's reader names every operation that it does not know
    package = root / relpath
    for folder, folders, names in os.walk(package):
        inside = Path(folder).relative_to(root)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*names, *links):
            _refuse_unlisted(root, (inside / name).as_posix(), files)


def _check_executorch(root: Path, relpath: str, files: Files, allow: Collection[str]) -> None:
    del files, allow  # one file; its operators are those that the runtime was built with
    with (root / relpath).open("rb") as file:
        head = file.read(8)
    if not _PROGRAM.fullmatch(head):
        raise ArtifactError(f"{root / relpath} is damaged: it is no ExecuTorch program")


def _refuse_unlisted(root: Path, relpath: str, files: Files) -> None:
    if relpath not in files and os.path.lexists(root / relpath):
        raise ArtifactError(
            f"{root / relpath} is not listed in the manifest and would be read; remove it or "
            "do not use this bundle"
        )


_CHECKS: Final[dict[str, Check]] = {
    "onnx": _check_onnx,
    "openvino": _check_openvino,
    "tensorrt": _check_tensorrt,
    "coreml": _check_coreml,
    "executorch": _check_executorch,
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
