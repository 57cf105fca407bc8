"""What keeps the steps after a translation to ONNX fast for graphs of thousands of nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_aten = torch.ops.aten
_OF_TWO_KINDS = (
    _aten.index_select.default,
    _aten.index.Tensor,
    _aten.gather.default,
    _aten.embedding.default,
    _aten.where.self,
    _aten._to_copy.default,
)
"""Operators that take or give another type by their meaning, without promoting any."""


def promotes(program: torch.export.ExportedProgram) -> bool:
    """Whether an operator of a program may compute in another type than that of its tensors.

    Finding the places runs the program once more with symbolic lengths, which takes as long as
    capturing it.
    """
    return any(
        isinstance(node.target, torch._ops.OpOverload) and _promotes(node)
        for node in program.graph_module.graph.nodes
    )


def _promotes(node: torch.fx.Node) -> bool:
    given = {
        value.dtype
        for argument in node.all_input_nodes
        if isinstance(value := argument.meta.get("val"), torch.Tensor)
    }
    if not given or node.target in _OF_TWO_KINDS:
        return False
    if _computes_with_length(node):
        return True
    made = node.meta.get("val")
    made = list(made) if isinstance(made, (tuple, list)) else [made]
    types = {value.dtype for value in made if isinstance(value, torch.Tensor)}
    return len(given) > 1 or not types <= given


def _computes_with_length(node: torch.fx.Node) -> bool:
    """Whether a length, an integer in a graph, is a value and not a place or a size."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    return any(
        isinstance(given, torch.fx.Node)
        and isinstance(given.meta.get("val"), (torch.SymInt, torch.SymFloat))
        and isinstance(argument.type, (torch.TensorType, torch.NumberType))
        for argument, given in zip(target._schema.arguments, node.args, strict=False)
    )


@contextlib.contextmanager
def linear_matching() -> Iterator[None]:
    """Let onnxscript try its patterns in a time that grows with a graph, not with its square.

    For a pattern of several outputs it sorts all nodes of the graph anew at every node, before it
    compares the node with the first output. Comparing first finds the same matches. A version that
    is built differently is left as it is.
    """
    try:
        from onnxscript.rewriter._basics import MatchResult
        from onnxscript.rewriter._matcher import SimplePatternMatcher
    except ImportError:
        yield
        return
    matcher: Any = SimplePatternMatcher
    original = matcher.match

    def match(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        pattern = self.pattern
        if not pattern.has_single_output_node:
            wanted = pattern.output_nodes[0].op_identifier()
            if wanted is not None and wanted != node.op_identifier():
                return MatchResult().fail("another operator")
        return original(self, model, graph, node, **options)

    matcher.match = match
    try:
        yield
    finally:
        matcher.match = original
