"""ONNX graphs of single stages: trace, translate, lint, simplify, check again; and their files."""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxslim
import torch

from scaleport.errors import ExportError, first_line
from scaleport.export.capture import (
    SECOND_TRACE,
    TraceSizes,
    capture,
    dynamic_shapes,
    example_inputs,
    quiet,
    replays,
    swift,
)
from scaleport.export.lint import assert_same_graph
from scaleport.export.settle import promotes, respelled, settled, with_views
from scaleport.models.base import Stage, listed
from scaleport.models.scan_graph import translations
from scaleport.runtimes.onnx_inside import MODULE_KEY

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph
    from scaleport.export.plan import ExportPlan

CHECK_SIZES = TraceSizes(1, 10, 19, 41, 22, 2)
"""Sizes that no trace used, for the numerical check after simplification."""

_SCOPES = "pkg.torch.onnx.name_scopes"
OPSET = 20
IR_VERSION = 10
_OWN_OPERATORS: Final = "scaleport"
"""Namespace of the operators of this package, which networks with a scan use."""


def trace_program(
    stage: Stage, captured: torch.export.ExportedProgram | None = None
) -> tuple[torch.onnx.ONNXProgram, bool]:
    """Trace a stage; the result holds the graph and the program that it was made from.

    Args:
        stage: what to trace.
        captured: the stage as :func:`scaleport.export.capture.capture` gives it, if it is there.

    Returns:
        The result, and whether it is proven to hold nothing of the traced sizes.

    Raises:
        ExportError: if it cannot be traced.
    """
    direct = translation()
    if direct is not None:
        try:
            program = settled(captured or capture(stage))
            proven = program is not None and replays(program, stage)
            if program is not None and proven and respelled(program, direct.known):
                return direct.run(program), True
        except Exception:
            # Whatever it is: the exporter's own way is there, and its words are for users.
            return _export(stage, TraceSizes()), False
    return _export(stage, TraceSizes()), False


def _export(stage: Stage, sizes: TraceSizes) -> torch.onnx.ONNXProgram:
    """Trace a stage with all that PyTorch's exporter does."""
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                stage.module.eval(),
                example_inputs(stage, sizes),
                dynamo=True,
                dynamic_shapes=dynamic_shapes(stage),
                opset_version=OPSET,
                custom_translation_table=translations(),
                verbose=False,
            )
        except Exception as error:
            # The exporter's own words are which of its steps failed; the reason is the cause's.
            reason = first_line(error.__cause__ or error)
            raise ExportError(f"stage {stage.name!r} cannot be traced: {reason}") from error
    assert program is not None
    return program


def _proto(program: torch.onnx.ONNXProgram, stage: Stage) -> onnx.ModelProto:
    for values, ports in (
        (program.model.graph.inputs, stage.inputs),
        (program.model.graph.outputs, stage.outputs),
    ):
        for value, port in zip(values, ports, strict=True):
            value.name = port.name
    model: onnx.ModelProto = program.model_proto
    _clean(model, stage)
    return model


def _clean(model: onnx.ModelProto, stage: Stage) -> None:
    """Give dynamic dimensions their declared names and drop traces of the building machine."""
    model.ir_version = IR_VERSION
    model.producer_name = "scaleport"
    model.producer_version = ""
    model.doc_string = ""
    model.graph.name = stage.name
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    # Symbols in inner value infos come from the tracer and would clash between stages.
    del model.graph.value_info[:]
    for values, ports in ((model.graph.input, stage.inputs), (model.graph.output, stage.outputs)):
        for value, port in zip(values, ports, strict=True):
            del value.metadata_props[:]
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in port.shape:
                dim = dims.add()
                if isinstance(size, str):
                    dim.dim_param = size
                else:
                    dim.dim_value = size
    for node in model.graph.node:
        node.doc_string = ""
        # Stack traces name files of the building machine; the module's path is what helps.
        scopes = next((p.value for p in node.metadata_props if p.key == _SCOPES), "[]")
        path = ["", *ast.literal_eval(scopes)][:-1]
        _set_module(node, path[-1] if path else "")


def _set_module(node: onnx.NodeProto, path: str) -> None:
    del node.metadata_props[:]
    if path:
        node.metadata_props.add(key=MODULE_KEY, value=path)


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def check(model: onnx.ModelProto, what: str) -> None:
    """Check a model's form, with shape inference.

    Raises:
        ExportError: naming ``what`` and the checker's first line.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"{what} is not valid ONNX: {first_line(error)}") from error


def simplify(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    """Simplify with onnxslim and check the form of the result.

    Raises:
        ExportError: if the simplified model is not valid.
    """
    with quiet():
        slim = onnxslim.slim(model)
    # The simplifier keeps names of tensors but drops what is known of their nodes.
    modules = {t: p.value for n in model.graph.node for t in n.output for p in n.metadata_props}
    for node in slim.graph.node:
        _set_module(node, modules.get(node.output[0], ""))
    _copy_lengths(slim)
    slim.producer_name, slim.producer_version = "scaleport", ""
    del slim.graph.value_info[:]
    check(slim, what)
    return slim


def _copy_lengths(model: onnx.ModelProto) -> None:
    """Take single lengths out of a shape by Gather instead of Squeeze, in place.

    Both give the same scalar, but the result of Squeeze shares the memory of the shape. The WebGPU
    provider of ONNX Runtime (1.30) computes the shape, leaves Squeeze to the processor, and frees
    the memory while the scalar is still read. Gather copies. See docs/measurements/web.md.
    """
    graph = model.graph
    shapes = {node.output[0] for node in graph.node if node.op_type == "Shape"}
    views = [n for n in graph.node if n.op_type == "Squeeze" and n.input[0] in shapes]
    if not views:
        return
    taken = {t.name for t in graph.initializer} | {t for n in graph.node for t in n.output}
    first = next(name for name in map("first_{}".format, count()) if name not in taken)
    graph.initializer.append(onnx.numpy_helper.from_array(np.int64(0), first))
    for node in views:
        node.op_type = "Gather"
        node.input[:] = [node.input[0], first]


def export_stage(
    stage: Stage, captured: torch.export.ExportedProgram | None = None
) -> onnx.ModelProto:
    """Lower one stage to ONNX.

    Nothing of the traced sizes may remain in the graph (the lint): the traced program is run
    beside the stage at other sizes, operator by operator. A stage that this cannot show it of is
    traced twice with different sizes, and both graphs must be the same. The result is simplified,
    and then compared with the stage itself at sizes of neither trace.

    Args:
        stage: what to lower.
        captured: the stage as :func:`scaleport.export.capture.capture` gives it, if it is there.

    Raises:
        ExportError: if it cannot be traced, or the graph and the stage disagree.
        LintError: if the graph depends on the sizes it was traced with.
    """
    program, proven = trace_program(stage, captured)
    model = _proto(program, stage)
    if not proven:
        assert_same_graph(model, _proto(_export(stage, SECOND_TRACE), stage), stage.name)
    check(model, f"stage {stage.name!r}")
    slim = simplify(model, f"simplified stage {stage.name!r}")

    inputs = example_inputs(stage, CHECK_SIZES)
    feeds = {p.name: t.numpy() for p, t in zip(stage.inputs, inputs, strict=True)}
    with torch.no_grad():
        expected = listed(stage.module(*inputs))
    reduced = _holds_float16(model)
    for port, want, got in zip(stage.outputs, expected, _run(slim, feeds), strict=True):
        bound = (2e-2 if reduced else 1e-4) * max(1.0, float(want.abs().max()))
        if not np.isfinite(got).all():
            raise ExportError(_overflow(slim, feeds, stage))
        error = float(np.abs(want.numpy() - got).max())
        if want.shape != got.shape or not error <= bound:
            raise ExportError(
                f"graph {stage.name!r} differs from the network at an untraced size: output "
                f"{port.name!r} is off by {error:.3g}"
            )
    return slim


def _overflow(model: onnx.ModelProto, feeds: dict[str, np.ndarray], stage: Stage) -> str:
    from scaleport.export.overflow import first_overflow

    where = first_overflow(model, feeds) or "an output"
    return (
        f"stage {stage.name!r} makes NaN or infinity, first in {where}; export fp32 only, or keep "
        "that module in float32 with --keep-float32"
    )


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, creating the directory. The caller stages and renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _holds_float16(model: onnx.ModelProto) -> bool:
    """Whether a graph computes in float16: its borders are float32 in any case."""
    half = onnx.TensorProto.FLOAT16
    return any(i.data_type == half for i in model.graph.initializer) or any(
        attribute.i == half
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    )


@dataclass(frozen=True)
class Translation:
    """What the installed PyTorch offers: which operators are known, and the translation."""

    known: Callable[[Any], bool]
    """Whether an operator is translated as it is."""
    run: Callable[[torch.export.ExportedProgram], torch.onnx.ONNXProgram]
    """Translate a program of known operators; its graph gets explicit conversions of types."""


@functools.cache
def translation() -> Translation | None:
    """The last steps of PyTorch's ONNX exporter; None if the installed PyTorch has others.

    ``torch.onnx.export`` captures a program, captures it again to rewrite operators, and reads its
    table of operators anew at every call. A program that needs no rewriting goes straight to the
    translation here, and the table is read once. These are inner functions of PyTorch: where a
    version has them under other names, callers use ``torch.onnx.export``.
    """
    with quiet():
        try:
            from torch.onnx._internal import _lazy_import
            from torch.onnx._internal.exporter import _core, _fx_passes, _registration

            registry = _registration.ONNXRegistry.from_torchlib(opset_version=OPSET)
            promote = _fx_passes.insert_type_promotion_nodes
            translate = _core._exported_program_to_onnx_program
            lazy: Any = _lazy_import
            raised = lazy.onnxscript_apis.convert_version
            registered = registry.is_registered
        except (ImportError, AttributeError, TypeError):
            return None

    def known(operator: Any) -> bool:
        if not registered(operator) and getattr(operator, "namespace", "") == _OWN_OPERATORS:
            for own, written in translations().items():
                registry.register_op(own, written)
        return bool(registered(operator))

    def run(program: torch.export.ExportedProgram) -> torch.onnx.ONNXProgram:
        config: Any = torch.fx.experimental._config
        with quiet(), swift(), torch.no_grad(), config.patch(backed_size_oblivious=True):
            if promotes(program):
                promote(program.graph_module)
            with_views(program)
            made: torch.onnx.ONNXProgram = translate(program, registry=registry)
            # Much of the table is written in an older opset.
            made.model = raised(made.model, OPSET)
            with linear_matching():
                made.optimize()
        return made

    return Translation(known, run)


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


def write(plan: ExportPlan) -> list[Graph]:
    """Write the ONNX graphs of a bundle: every stage and the whole graphs in every precision."""
    graphs = []
    for precision in plan.options.precisions:
        for stage in plan.written_stages(precision):
            path = f"onnx/{precision}/{stage.name}.onnx"
            save(plan.final_stage(precision, stage), plan.place(path))
            graphs.append(plan.stage_entry(stage, precision, path))
        for scale, stage in plan.whole_stages(precision):
            path = f"onnx/{precision}/{stage.name}.onnx"
            save(plan.final_whole(precision, scale, stage), plan.place(path))
            graphs.append(plan.stage_entry(stage, precision, path))
        for name in plan.fronts:
            path = f"onnx/{precision}/{name}.onnx"
            save(plan.onnx_whole(precision, name), plan.place(path))
            graphs.append(plan.whole_entry(name, precision, path))
    return graphs
