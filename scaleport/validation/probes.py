"""Every tensor that a backend computes in a graph, not the outputs alone.

A graph whose tensors are all outputs is a graph that a backend cannot fuse: what only goes wrong in
a fused operation does not show here, and :mod:`scaleport.validation.bisect` says so when it finds
that the graph as it is differs and this one does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from scaleport.errors import BackendError, UsageError, first_line
from scaleport.runtimes.base import GraphFile, SessionOptions
from scaleport.runtimes.mil import Evaluator, read_program
from scaleport.validation.divergence import Value

if TYPE_CHECKING:
    import onnx

    from scaleport.runtimes.mil.program import Operation

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Probe = Callable[[Path, Feeds], list[Value]]


def probe_of(backend: str) -> Probe:
    """The function that runs a graph on a backend and returns all its tensors.

    Raises:
        UsageError: if there is none for this backend.
    """
    if backend not in PROBES:
        reason = " (it is the reference)" if backend == "torch" else ""
        raise UsageError(
            f"no tensors can be read from inside {backend!r}{reason}; known: {', '.join(PROBES)}"
        )
    return PROBES[backend]


def source_format(backend: str) -> str:
    """Format of the graphs whose tensors are read.

    Engines hold none any more, so TensorRT builds them again from the ONNX graph.
    """
    return {"openvino": "openvino", "coreml": "coreml"}.get(backend, "onnx")


def whole_stage(backend: str) -> str:
    """Name of the whole graph that a backend takes: TensorRT has no shapes that follow floats."""
    return "whole_size" if backend == "tensorrt" else "whole"


def _named(model: onnx.ModelProto, values: Mapping[str, Any]) -> list[Value]:
    from scaleport.export.onnx import module_of

    found: list[Value] = []
    for node in model.graph.node:
        module = module_of(node)
        found += [
            Value(name, node.op_type, np.asarray(values[name]), module)
            for name in node.output
            if name in values
        ]
    return found


def _marked(path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A graph, and the same graph with every tensor as an output."""
    try:
        import onnx
        from polygraphy import constants
        from polygraphy.backend.onnx import modify_outputs
    except ImportError as error:
        raise BackendError(
            f"bisect needs {error.name}, which is not installed: pip install 'scaleport[export]'"
        ) from error
    model = onnx.load(str(path))
    return model, modify_outputs(model, outputs=constants.MARK_ALL, copy=True)


def onnxruntime_values(path: Path, feeds: Feeds) -> list[Value]:
    """Run an ONNX graph in ONNX Runtime, unoptimised.

    Raises:
        BackendError: if Polygraphy or ONNX Runtime is missing, or refuses the graph.
    """
    import onnxruntime

    model, marked = _marked(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            marked.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_outputs()]
        results = session.run(names, dict(feeds))
    except Exception as error:
        raise BackendError(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from error
    return _named(model, dict(zip(names, results, strict=True)))


def openvino_values(path: Path, feeds: Feeds) -> list[Value]:
    """Run an OpenVINO IR on the CPU in the precision of the graph.

    Raises:
        BackendError: if OpenVINO is missing or refuses the graph.
    """
    from scaleport.runtimes.openvino import shared_core

    try:
        core = shared_core()
        model = core.read_model(str(path))
        ports: list[tuple[str, list[str], Any]] = []
        for operation in model.get_ordered_ops():
            kind = operation.get_type_name()
            if kind in ("Parameter", "Constant", "Result"):
                continue
            named = (port for port in operation.outputs() if port.get_names())
            ports += [(kind, sorted(port.get_names()), port) for port in named]
        own = len(model.outputs)
        # Outputs of the model are read as such; a port may not be listed twice.
        results = {name for output in model.outputs for name in output.get_names()}
        more = [(k, n, p) for k, n, p in ports if not results & set(n)]
        model.add_outputs([port for _, _, port in more])
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(model, "CPU", config)
        request = compiled.create_infer_request()
        answer = request.infer(dict(feeds), share_outputs=False)
        arrays = [np.asarray(answer[i]) for i in range(len(compiled.outputs))]
    except Exception as error:
        raise BackendError(f"OpenVINO refuses {path.name}: {first_line(error)}") from error
    added = {tuple(names): array for (_, names, _), array in zip(more, arrays[own:], strict=True)}
    outputs = dict(zip((tuple(sorted(o.get_names())) for o in model.outputs), arrays, strict=True))
    known = {**outputs, **added}
    return [
        Value(name, kind, known[tuple(names)])
        for kind, names, _ in ports
        if tuple(names) in known
        for name in names
    ]


def coreml_values(path: Path, feeds: Feeds) -> list[Value]:
    """Evaluate a Core ML program operation by operation, with numpy on every system."""
    found: list[Value] = []

    def observe(operation: Operation, name: str, value: Array) -> None:
        found.append(Value(name, operation.kind, value.copy()))

    Evaluator(read_program(path)).run(feeds, observe)
    return found


def tensorrt_engine(path: Path, feeds: Feeds, target: Path) -> onnx.ModelProto:
    """Build an engine of an ONNX graph with every tensor as an output, for shapes of these feeds.

    Args:
        path: the graph.
        feeds: one array per input; those of ``size`` are its values too.
        target: the engine to write.

    Returns:
        The graph as it is.

    Raises:
        BackendError: if a library is missing.
        ExportError: if TensorRT refuses the graph; names the node.
    """
    import onnx

    from scaleport.export.tensorrt import SIZE_INPUT, ShapeRange, build_engine

    model, marked = _marked(path)
    # Of a tensor that becomes an output only the name is known, and TensorRT wants its type.
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
    for output in marked.graph.output:
        output.type.CopyFrom(types[output.name])
    ranges = {}
    for name, value in feeds.items():
        by_value = name == SIZE_INPUT
        only = tuple(int(n) for n in (value if by_value else value.shape))
        of: Literal["shape", "values"] = "values" if by_value else "shape"
        ranges[name] = ShapeRange(min=only, opt=only, max=only, of=of)
    # Under its own name, so that an error names the graph of the bundle.
    source = target.with_name(path.name)
    onnx.save(marked, source)
    build_engine(source, target, ranges)
    return model


def tensorrt_values(path: Path, feeds: Feeds) -> list[Value]:
    """Build an engine of an ONNX graph with every tensor as an output, and run it.

    Built and run as the engines of a bundle are, by the same library.

    Raises:
        BackendError: if a library or a GPU is missing, or the engine cannot run.
        ExportError: if TensorRT refuses the graph.
    """
    from scaleport.runtimes.tensorrt import TensorRTBackend

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "marked.engine"
        model = tensorrt_engine(path, feeds, target)
        outputs = tuple(name for node in model.graph.node for name in node.output)
        file = GraphFile(target, path.stem, "", tuple(feeds), outputs)
        with TensorRTBackend().load(file, SessionOptions()) as session:
            values = session.run(feeds)
    return _named(model, values)


PROBES: Final[dict[str, Probe]] = {
    "onnxruntime": onnxruntime_values,
    "openvino": openvino_values,
    "coreml": coreml_values,
    "tensorrt": tensorrt_values,
}
