"""The kinds of operations in a graph of any format, without a runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scaleport.errors import BackendError, UsageError

_LAYER: Final = re.compile(r'<layer\b[^>]*\btype="(\w+)"')
_NO_OPERATIONS: Final = ("Parameter", "Const", "Result")


def operations_of(path: Path, form: str) -> Iterator[str]:
    """The kind of every operation of a graph, under the names of its format.

    Args:
        path: the graph.
        form: ``onnx``, ``openvino`` or ``coreml``.

    Raises:
        UsageError: of another format.
        BackendError: if the library that reads it is missing.
        ArtifactError: if the graph is damaged.
    """
    if form == "openvino":
        kinds = _LAYER.findall(path.read_text(encoding="utf-8"))
        yield from (kind for kind in kinds if kind not in _NO_OPERATIONS)
    elif form == "coreml":
        from scaleport.mil import read_program

        yield from (operation.kind for operation in read_program(path).operations)
    elif form == "onnx":
        yield from _onnx_operations(path)
    else:
        raise UsageError(f"the operations of {form} graphs cannot be read")


def _onnx_operations(path: Path) -> Iterator[str]:
    try:
        import onnx
    except ImportError as error:
        raise BackendError("onnx is not installed: pip install 'scaleport[export]'") from error

    def inside(graph: onnx.GraphProto) -> Iterator[str]:
        for node in graph.node:
            yield node.op_type
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from inside(attribute.g)

    yield from inside(onnx.load(str(path), load_external_data=False).graph)
