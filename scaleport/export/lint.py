"""Graph lint: nothing of the traced scale or size may remain in a graph.

A constant that came from a traced length is right at that length and wrong at every other. It
cannot be told from a weight by looking at one graph. Where a captured program can run beside its
stage, :func:`scaleport.export.capture.replays` finds it; any other stage is traced twice with sizes
that share no length: whatever differs between both graphs depends on the trace.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from scaleport.errors import LintError


def _constants(model: onnx.ModelProto) -> dict[str, bytes]:
    found = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        found[tensor.name] = f"{array.dtype}{array.shape}".encode() + array.tobytes()
    return found


def _describe(node: onnx.NodeProto) -> str:
    module = next((p.value for p in node.metadata_props if p.key == "module"), "")
    return f"{node.op_type} {node.name or node.output[0]!r}" + (f" in {module}" if module else "")


def assert_same_graph(first: onnx.ModelProto, second: onnx.ModelProto, stage: str) -> None:
    """Refuse a graph that came out differently at two trace sizes.

    Args:
        first: graph of the first trace.
        second: graph of the second trace, of the same stage.
        stage: name of the stage, for the message.

    Raises:
        LintError: naming the first node or constant that depends on the trace.
    """
    where = f"stage {stage!r} depends on the size or scale it was traced with"
    ones, twos = list(first.graph.node), list(second.graph.node)
    for one, two in zip(ones, twos, strict=False):
        if one.op_type != two.op_type:
            raise LintError(f"{where}: {_describe(one)} became {two.op_type}")
        attributes = [sorted(a.SerializeToString() for a in n.attribute) for n in (one, two)]
        if attributes[0] != attributes[1]:
            raise LintError(f"{where}: an attribute of {_describe(one)} changed")
    if len(ones) != len(twos):
        raise LintError(f"{where}: {len(ones)} nodes became {len(twos)}")
    constants, others = _constants(first), _constants(second)
    for one, two in zip(ones, twos, strict=True):
        for name, other in zip(one.input, two.input, strict=False):
            if constants.get(name) != others.get(other):
                raise LintError(f"{where}: constant {name!r} of {_describe(one)} changed")
