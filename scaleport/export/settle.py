"""A captured program in the operators that exporters know, without capturing it a second time.

What PyTorch would do by capturing again, to rewrite operators, is done on the program itself: what
checks, detaches or lays out anew goes, what writes in place returns instead, and a few operators
are spelled with others.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.export.graph_signature import OutputSpec, TensorArgument
from torch.fx.node import Node

_aten = torch.ops.aten
_ASSERTIONS = (
    _aten._assert_tensor_metadata.default,
    _aten._assert_scalar.default,
    _aten._assert_async.default,
    _aten._assert_async.msg,
    _aten.sym_constrain_range_for_size.default,
)
_SAME = (
    _aten.detach.default,
    _aten.detach_.default,
    _aten.alias.default,
    _aten.lift_fresh_copy.default,
)
"""Operators whose result is their input, in a graph in which nothing changes in place."""
_OF_TWO_KINDS = (
    _aten.index_select.default,
    _aten.index.Tensor,
    _aten.gather.default,
    _aten.embedding.default,
    _aten.where.self,
    _aten._to_copy.default,
)
"""Operators that take or give another type by their meaning, without promoting any."""


def settled(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram | None:
    """The program as PyTorch's rewriting would leave it, without capturing it a second time.

    Assertions go, conversions to the type that a tensor already has go, and so does what detaches
    or lays out anew. Everything else must be an operator that changes nothing in place.

    Args:
        program: a captured program; not changed.

    Returns:
        The program, or None if it holds an operator that has to be rewritten.
    """
    graph = copy.deepcopy(program.graph_module.graph)
    if not all(_settle(graph, node) for node in list(graph.nodes)):
        return None
    # Backwards, so that arithmetic on lengths that only assertions read goes whole.
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)
    signature = copy.copy(program.graph_signature)
    results = next(node for node in graph.nodes if node.op == "output").args[0]
    signature.output_specs = [
        OutputSpec(spec.kind, TensorArgument(result.name), spec.target)
        for spec, result in zip(signature.output_specs, results, strict=True)
    ]
    return torch.export.ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=copy.deepcopy(program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=program.constants,
    )


def _settle(graph: torch.fx.Graph, node: torch.fx.Node) -> bool:
    """Settle one node of a graph; False if it has to be rewritten."""
    if node.op != "call_function":
        return node.op != "get_attr"
    if node.target in _ASSERTIONS:
        graph.erase_node(node)
    elif node.target is _aten.to.dtype:
        return _settle_conversion(graph, node)
    elif node.target in _SAME:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
    elif node.target is _aten.chunk.default:
        return _settle_chunk(graph, node)
    elif isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
        return _settle_in_place(node)
    return True


def _settle_chunk(graph: torch.fx.Graph, node: Node) -> bool:
    """Cut pieces out one by one.

    A list of pieces is a sequence to ONNX, of which shapes are not known, and nothing to Core ML.
    """
    arguments: tuple[Any, ...] = node.args
    x, count, *rest = arguments
    dim = rest[0] if rest else 0
    length = x.meta["val"].shape[dim]
    if not isinstance(length, int):
        return False
    step = -(-length // count)
    for piece in list(node.users):
        place: Any = piece.args[1]
        start = place * step
        with graph.inserting_before(piece):
            cut = graph.call_function(_aten.slice.Tensor, (x, dim, start, start + step))
        cut.meta = dict(piece.meta)
        piece.replace_all_uses_with(cut)
        graph.erase_node(piece)
    graph.erase_node(node)
    return True


def _settle_in_place(node: Node) -> bool:
    """Call the operator that returns what this one writes, where nothing else sees the memory.

    That is so if the memory belongs to what an operator made anew, and no view of it is taken.
    """
    target: Any = node.target
    written, *others = node.all_input_nodes
    twin = getattr(_aten, target._schema.name.removeprefix("aten::").rstrip("_"), None)
    overload = getattr(twin, target._overloadname, None)
    dtypes = {getattr(other.meta["val"], "dtype", None) for other in others}
    if (
        overload is None
        or node.args[0] is not written
        or not target._schema.arguments[0].is_write
        or sum(argument.is_write for argument in target._schema.arguments) != 1
        or not dtypes <= {written.meta["val"].dtype, None}
        or not _makes_anew(written)
        or any(not _makes_anew(user) for user in written.users if user is not node)
    ):
        return False
    later = node.next
    while later.op != "root":
        later.replace_input_with(written, node)
        later = later.next
    node.target = overload
    return True


def _makes_anew(node: Node) -> bool:
    """Whether what an operator returns shares no memory with what it is given."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return node.op == "output" or target is not operator.getitem
    return all(result.alias_info is None for result in target._schema.returns)


def respelled(program: torch.export.ExportedProgram, known: Callable[[Any], bool]) -> bool:
    """Spell a settled program with operators that the next exporter knows, in place.

    Args:
        program: result of :func:`settled`.
        known: whether the exporter can lower an operator as it is.

    Returns:
        Whether it knows all of them now.
    """
    without_layout(program)
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or known(node.target):
            continue
        if node.target is _aten.var.dim:
            _respell_variance(graph, node)
        elif node.target is _aten.rsub.Scalar and len(node.args) == 2:
            x, number = node.args
            dtype = x.meta["val"].dtype
            with graph.inserting_before(node):
                left = graph.call_function(_aten.scalar_tensor.default, (number,), {"dtype": dtype})
            with x.meta["val"].fake_mode:
                left.meta = {**node.meta, "val": torch.scalar_tensor(number, dtype=dtype)}
            node.target, node.args = _aten.sub.Tensor, (left, x)
        elif node.target is _aten.numpy_T.default:
            (x,) = node.args
            axes = list(reversed(range(x.meta["val"].dim())))
            node.target, node.args = _aten.permute.default, (x, axes)
    program.graph_module.recompile()
    return all(known(node.target) for node in graph.nodes if node.op == "call_function")


def _respell_variance(graph: torch.fx.Graph, node: Node) -> None:
    """A variance as the mean square of what is left without the mean, in float32 at least."""
    x, dims, *rest = node.args
    unbiased, keepdim = rest + [True, False][len(rest) :]
    if unbiased or node.kwargs or not isinstance(x, Node):
        return
    dtype = x.meta["val"].dtype

    def call(target: Any, *args: Any, **kwargs: Any) -> Node:
        values = [arg.meta["val"] if isinstance(arg, Node) else arg for arg in args]
        with graph.inserting_before(node), x.meta["val"].fake_mode:
            made = graph.call_function(target, args, kwargs)
            made.meta = {**node.meta, "val": target(*values, **kwargs)}
        return made

    wide = dtype in (torch.float16, torch.bfloat16)
    y = call(_aten._to_copy.default, x, dtype=torch.float32) if wide else x
    centred = call(_aten.sub.Tensor, y, call(_aten.mean.dim, y, dims, True))
    square = call(_aten.mul.Tensor, centred, centred)
    made = call(_aten.mean.dim, square, dims, keepdim)
    node.replace_all_uses_with(call(_aten._to_copy.default, made, dtype=dtype) if wide else made)
    graph.erase_node(node)


def without_layout(program: torch.export.ExportedProgram) -> None:
    """Take out what only lays tensors out anew, in place: graphs have no strides.

    Before, a program computes bit by bit what its stage does: PyTorch chooses the algorithm of a
    convolution by the strides of its input.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is _aten.contiguous.default and all(u.op != "output" for u in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()


def with_views(program: torch.export.ExportedProgram) -> None:
    """Call every reshape a view, as PyTorch's rewriting does: graphs have no strides.

    In place, and last: PyTorch cannot run such a program.
    """
    for node in program.graph_module.graph.nodes:
        if node.target is _aten.reshape.default:
            node.target = _aten.view.default
    program.graph_module.recompile()


def _settle_conversion(graph: torch.fx.Graph, node: Node) -> bool:
    source, dtype, *rest = node.args
    if rest or node.kwargs or not isinstance(source, Node):
        return False
    if source.meta["val"].dtype == dtype:
        node.replace_all_uses_with(source)
        graph.erase_node(node)
        return True
    node.target = _aten._to_copy.default
    node.args, node.kwargs = (source,), {"dtype": dtype}
    return True


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
