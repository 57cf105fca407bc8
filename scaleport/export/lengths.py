"""Lengths of a graph's inputs, each read once and from the same input in every trace.

Several inputs share a dimension, and the tracer reads its length from any of them. Which one has
been seen to change from one trace of a stage to the next in the same process: the lint took that
for a traced length that had stayed in the graph, and refused a calibration after a quarter of an
hour. Two exports would also not be the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from scaleport.models.base import Port


def read_lengths_once(model: onnx.ModelProto, inputs: Sequence[Port]) -> None:
    """Read every named length from the first input that has it, at the front of the graph.

    Args:
        model: graph of a stage; changed.
        inputs: the stage's ports. Those of one dimension share its length.
    """
    first: dict[str, tuple[str, int]] = {}
    names: dict[tuple[str, int], str] = {}
    for port in inputs:
        for axis, size in enumerate(port.shape):
            if isinstance(size, str):
                first.setdefault(size, (port.name, axis))
                names[port.name, axis] = size
    renamed: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        target = None
        if not outputs.intersection(node.output):
            target = _length(node, names) or _scalar(node, renamed)
        if target is None:
            kept.append(node)
        else:
            renamed[node.output[0]] = target
    made = [
        node
        for name, (source, axis) in first.items()
        for node in _reads(name, source, axis)
        if node.output[0] in renamed.values()
    ]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*made, *kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _reads(name: str, source: str, axis: int) -> list[onnx.NodeProto]:
    shape, length = f"{name}/shape", f"{name}/length"
    return [
        helper.make_node("Shape", [source], [shape], name=shape, start=axis, end=axis + 1),
        helper.make_node("Squeeze", [shape], [length], name=length),
    ]


def _length(node: onnx.NodeProto, names: dict[tuple[str, int], str]) -> str | None:
    """New name of what reads one named length of an input."""
    if node.op_type != "Shape":
        return None
    span = {attribute.name: attribute.i for attribute in node.attribute}
    start = span.get("start", 0)
    name = names.get((node.input[0], start))
    return f"{name}/shape" if name is not None and span.get("end") == start + 1 else None


def _scalar(node: onnx.NodeProto, renamed: dict[str, str]) -> str | None:
    """New name of what makes a number of such a length."""
    shape = renamed.get(node.input[0]) if node.op_type == "Squeeze" else None
    if shape is None or not shape.endswith("/shape"):
        return None
    return f"{shape.removesuffix('/shape')}/length"
