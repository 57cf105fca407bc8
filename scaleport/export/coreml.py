"""Core ML: one stage to one ML program in an ``.mlpackage``."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaleport.atomic import replace_folder
from scaleport.errors import BackendError, ExportError, OutputError, UsageError, first_line
from scaleport.export.capture import TraceSizes, capture, example_inputs, swift
from scaleport.export.capture import quiet as exporters_quiet
from scaleport.export.coreml_lowering import corrected_frontend, unknown_operators
from scaleport.export.coreml_options import CoreMLOptions
from scaleport.export.settle import settled, with_views, without_layout
from scaleport.grid import output_length
from scaleport.mil import Evaluator, read_program
from scaleport.models.base import Stage
from scaleport.tensor import TensorSpec

CHECK_SIZES = TraceSizes(1, 10, 19, 41, 22, 2)
"""Sizes that no trace used, for the numerical check of the written package."""

_PRODUCTS = ("conv", "linear", "matmul", "conv_transpose", "einsum")
_TORCH_PRODUCTS = (
    *("conv1d", "conv2d", "convolution", "conv_transpose2d", "linear", "matmul", "mm", "bmm"),
    *("addmm", "baddbmm", "einsum"),
)
_FEW_WEIGHTS = 64
# Coarse: what int8 costs is measured as a loss of quality, not here.
_INT8_ERROR = 0.25
_GATHERS = ("gather", "gather_along_axis", "gather_nd")


def export_stage(
    stage: Stage,
    target: Path,
    options: CoreMLOptions | None = None,
    captured: torch.export.ExportedProgram | None = None,
) -> None:
    """Lower one stage to an ML program and write it as ``target``, a ``.mlpackage``.

    The precision is that of the stage's module: casts, float16 weights and float32 grid arithmetic
    are kept as they are. Inputs and outputs carry the names and types of the stage's ports. The
    written program is evaluated at sizes that no trace used and compared with the stage.

    Args:
        stage: the stage; its module is switched to eval mode.
        target: path of the package; replaced whole, or left as it was.
        options: ranges and target system; the defaults of :class:`CoreMLOptions` if left out.
        captured: the stage as :func:`scaleport.export.capture.capture` gives it, if it is there.

    Raises:
        BackendError: if coremltools is not installed.
        ExportError: if the stage cannot be converted, or the package computes something else.
        UnsupportedOpError: if the package holds an operation that the MIL evaluator, and so the
            check, does not know.
        OutputError: if the target cannot be written.
    """
    if target.suffix != ".mlpackage":
        raise UsageError(f"a Core ML package is named *.mlpackage, not {target.name!r}")
    with quiet():
        traced = trace_program(stage, captured)
        options = options or CoreMLOptions()
        model = _convert(stage, traced, options)
        _check_program(stage, traced, model._mil_program)
        if options.int8_weights:
            model = _with_int8_weights(model, stage)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from error
    try:
        package = scratch / target.name
        with quiet():
            model.save(str(package))
        # Written for ExecuTorch's debugger; the package's manifest does not know the file.
        (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        for sizes in _check_sizes(stage, options):
            _check_numbers(stage, traced, package, options, sizes)
        replace_folder(package, target, scratch / "old")
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, version warnings and deprecation warnings of the converters."""
    silent = contextlib.redirect_stderr(io.StringIO())
    with exporters_quiet("coremltools", level=logging.CRITICAL), silent:
        yield


def trace_program(
    stage: Stage, captured: torch.export.ExportedProgram | None = None
) -> torch.export.ExportedProgram:
    """The stage as a graph of PyTorch operators, without slices that take everything.

    Args:
        stage: what to trace.
        captured: the stage as :func:`scaleport.export.capture.capture` gives it, if it is there.

    Raises:
        ExportError: if it cannot be traced.
    """
    captured = captured or capture(stage)
    traced = settled(captured)
    if traced is not None:
        without_layout(traced)
    if traced is not None and not unknown_operators(traced):
        with_views(traced)
    else:
        try:
            config: Any = torch.fx.experimental._config
            with torch.no_grad(), swift(), config.patch(backed_size_oblivious=True):
                traced = captured.run_decompositions({})
        except Exception as error:
            reason = first_line(error)
            raise ExportError(f"stage {stage.name!r} cannot be traced: {reason}") from error
    # Indexing with None leaves a slice per dimension; the converter would give each result a
    # dynamic length of its own.
    for node in list(traced.graph.nodes):
        if node.target is torch.ops.aten.slice.Tensor and _takes_all(node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            traced.graph.erase_node(node)
        elif node.target is torch.ops.aten._assert_scalar.default:
            # What tracing assumed of the lengths; the numerical check is at other lengths.
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    return traced


def _takes_all(node: torch.fx.Node) -> bool:
    bounds: list[Any] = [*node.args[2:]]
    bounds += [0, sys.maxsize, 1][len(bounds) :]
    border = any(user.op == "output" for user in node.users)
    return bounds == [0, sys.maxsize, 1] and not border


def _convert(stage: Stage, traced: torch.export.ExportedProgram, options: CoreMLOptions) -> Any:
    try:
        import coremltools as ct
    except ImportError as error:
        raise BackendError(
            "coremltools is not installed: pip install 'scaleport[coreml]'"
        ) from error

    ranges: dict[str, Any] = {}

    def dimension(size: int | str) -> Any:
        if isinstance(size, int):
            return size
        if size not in ranges:
            low, typical, high = options.lengths(size)
            same = low == high
            ranges[size] = low if same else ct.RangeDim(low, high, default=typical)
        return ranges[size]

    def tensor(port: TensorSpec) -> Any:
        shape: Any = [dimension(size) for size in port.shape]
        if options.enumerates(stage):
            shapes = [[*shape[:2], height, width] for height, width in options.sizes]
            shape = ct.EnumeratedShapes(shapes=shapes, default=shapes[0])
        return ct.TensorType(name=port.name, shape=shape, dtype=_numpy_type(port))

    try:
        with corrected_frontend():
            return ct.convert(
                traced,
                inputs=[tensor(port) for port in stage.inputs],
                outputs=[
                    ct.TensorType(name=port.name, dtype=_numpy_type(port)) for port in stage.outputs
                ],
                convert_to="mlprogram",
                # The module's own types are the precision plan; nothing may be lowered further.
                compute_precision=ct.precision.FLOAT32,
                minimum_deployment_target=getattr(ct.target, options.deployment_target),
                skip_model_load=True,
            )
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"stage {stage.name!r} cannot become Core ML: {first_line(error)}"
        ) from error


def _numpy_type(port: TensorSpec) -> Any:
    kinds = {"float32": np.float32, "int32": np.int32}
    if port.dtype not in kinds:
        raise ExportError(f"the border of a stage is float32 or int32, not {port.dtype}")
    return kinds[port.dtype]


def _check_program(stage: Stage, traced: torch.export.ExportedProgram, program: Any) -> None:
    """Refuse what a numerical check at small sizes cannot see.

    Raises:
        ExportError: if an index is computed in floats, or a product that the module computes in
            float16 is computed in float32.
    """
    from coremltools.converters.mil.mil import types

    products = [node for node in traced.graph.nodes if _operator(node) in _TORCH_PRODUCTS]
    reduced = bool(products) and all(p.meta["val"].dtype == torch.float16 for p in products)
    for operation in program.functions["main"].operations:
        if operation.op_type in _GATHERS and _from_float(operation.indices):
            raise ExportError(
                f"stage {stage.name!r}: the indices of {operation.name!r} pass through a float"
            )
        product = operation.op_type in _PRODUCTS
        if reduced and product and operation.outputs[0].dtype != types.fp16:
            raise ExportError(
                f"stage {stage.name!r} is float16, but {operation.name!r} is computed wider"
            )


def _operator(node: torch.fx.Node) -> str:
    """``conv2d`` of the node that calls ``aten.conv2d.default``; empty for other nodes."""
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""


def _from_float(value: Any) -> bool:
    """Whether an integer value is made from an integer that was a float in between.

    A float that began as a float, such as a network's own offset, is a small distance and may be
    rounded to a whole number.
    """
    from coremltools.converters.mil.mil import Var, types

    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if item.name in seen or item.op is None or item.val is not None:
            continue
        seen.add(item.name)
        # The lengths of a float tensor are integers all the same.
        if item.op.op_type == "shape":
            continue
        for operand in item.op.inputs.values():
            for part in operand if isinstance(operand, (list, tuple)) else (operand,):
                if not isinstance(part, Var) or part.dtype == types.str or part.val is not None:
                    continue
                if types.is_float(item.dtype) and types.is_int(part.dtype):
                    if item.op.op_type == "cast":
                        return True
                    continue  # an index or a shape, not a value
                pending.append(part)
    return False


def _with_int8_weights(model: Any, stage: Stage) -> Any:
    """The same model with the weights of its products in int8."""
    from coremltools.optimize import coreml as optimise

    config = optimise.OptimizationConfig(
        op_type_configs={
            kind: optimise.OpLinearQuantizerConfig(
                mode="linear_symmetric", granularity="per_channel", weight_threshold=_FEW_WEIGHTS
            )
            for kind in ("conv", "linear", "matmul")
        }
    )
    try:
        return optimise.linear_quantize_weights(model, config=config)
    except Exception as error:
        raise ExportError(
            f"stage {stage.name!r} cannot have int8 weights in Core ML: {first_line(error)}"
        ) from error


def _check_sizes(stage: Stage, options: CoreMLOptions) -> list[TraceSizes]:
    """Sizes of no trace for the numerical check, as near to the usual ones as ranges allow."""
    usual = CHECK_SIZES
    if options.fixed:
        n, h, w, ho, wo = (options.fixed[name] for name in ("N", "H", "W", "Ho", "Wo"))
        sizes = options.sizes if options.enumerates(stage) else ((h, w),)
        return [TraceSizes(n, *size, ho, wo, usual.scale) for size in sizes]
    height = min(max(usual.height, options.height.min), options.height.max)
    width = min(max(usual.width, options.width.min), options.width.max)
    scale = min(usual.scale, options.lengths("S")[2])
    if (height, width, scale) == (usual.height, usual.width, usual.scale):
        return [usual]
    # Real scales, another one per axis, up to the largest.
    out = (output_length(n, s) for n, s in ((height, 1.3), (width, 1.9)))
    out_height, out_width = map(min, out, (options.lengths(n)[2] for n in ("Ho", "Wo")))
    return [TraceSizes(1, height, width, out_height, out_width, scale)]


def _check_numbers(
    stage: Stage,
    traced: torch.export.ExportedProgram,
    package: Path,
    options: CoreMLOptions,
    sizes: TraceSizes,
) -> None:
    """Compare the written package with the stage at sizes of no trace."""
    evaluator = Evaluator(read_program(package))
    inputs = example_inputs(stage, sizes)
    feeds = {port.name: t.numpy() for port, t in zip(stage.inputs, inputs, strict=True)}
    with torch.no_grad():
        expected = stage.module(*inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    values = [node.meta.get("val") for node in traced.graph.nodes]
    reduced = any(isinstance(v, torch.Tensor) and v.dtype == torch.float16 for v in values)
    results = evaluator.run(feeds)
    for port, want in zip(stage.outputs, expected, strict=True):
        got = results.get(port.name)
        if got is None or got.shape != tuple(want.shape):
            raise ExportError(
                f"the Core ML program of stage {stage.name!r} depends on the traced sizes: "
                f"output {port.name!r} has another shape"
            )
        share = _INT8_ERROR if options.int8_weights else 2e-2 if reduced else 1e-4
        bound = share * max(1.0, float(want.abs().max()))
        error = float(np.abs(want.numpy() - got).max())
        if not error <= bound:
            raise ExportError(
                f"the Core ML program of stage {stage.name!r} differs from the network at an "
                f"untraced size: output {port.name!r} is off by {error:.3g}"
            )
