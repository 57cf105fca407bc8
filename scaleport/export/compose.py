"""Join graphs by the names of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from scaleport.errors import ExportError
from scaleport.export.translate import IR_VERSION, OPSET


@dataclass(frozen=True)
class Part:
    """One graph of a composition.

    Border tensors keep their names, so that equal names connect; ``rename`` gives a border tensor
    another name in the joined graph. Inner names get ``prefix``.
    """

    prefix: str
    model: onnx.ModelProto
    rename: Mapping[str, str] = field(default_factory=dict)


def join(
    name: str,
    parts: Sequence[Part],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Join parts, given in the order of computation, into one model.

    Args:
        name: name of the joined graph.
        parts: graphs of one opset; each input must be an input of the whole or an output of an
            earlier part.
        inputs: inputs of the whole.
        outputs: outputs of the whole.

    Raises:
        ExportError: if a tensor is missing or made twice.
    """
    graph = onnx.GraphProto(name=name)
    made = {value.name for value in inputs}
    for part in parts:
        source = part.model.graph
        if [o.version for o in part.model.opset_import if o.domain in ("", "ai.onnx")] != [OPSET]:
            raise ExportError(f"cannot join {part.prefix!r}: it is not of opset {OPSET}")
        border = {v.name for v in (*source.input, *source.output)}
        names = {b: part.rename.get(b, b) for b in border} | {"": ""}

        def renamed(tensor: str, part: Part = part, names: dict[str, str] = names) -> str:
            return names.get(tensor, f"{part.prefix}/{tensor}")

        for value in source.input:
            if renamed(value.name) not in made:
                raise ExportError(f"cannot join {part.prefix!r}: nothing makes {value.name!r}")
        for tensor in source.initializer:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
        for node in source.node:
            copy_node = graph.node.add()
            copy_node.CopyFrom(node)
            copy_node.name = f"{part.prefix}/{node.name or node.output[0]}"
            _rename(copy_node, renamed)
            twice = made & set(copy_node.output) - {""}
            if twice:
                raise ExportError(f"cannot join {part.prefix!r}: {twice.pop()!r} is made twice")
            made |= set(copy_node.output)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="scaleport"
    )


def _rename(node: onnx.NodeProto, renamed: Callable[[str], str]) -> None:
    """Rename what a node reads and makes, in the bodies of loops and branches too.

    A body reads tensors of the graph around it by name, and none of its own may be called like
    one of those: all names in it change alike.
    """
    node.input[:] = [renamed(tensor) for tensor in node.input]
    node.output[:] = [renamed(tensor) for tensor in node.output]
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for value in (*body.input, *body.output, *body.value_info, *body.initializer):
                value.name = renamed(value.name)
            for sparse in body.sparse_initializer:
                sparse.values.name = renamed(sparse.values.name)
            for inner in body.node:
                _rename(inner, renamed)
