"""Which operations of a bundle's graphs a backend takes, and what each of them runs on."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.bundle.manifest import Graph
from scaleport.bundle.reader import Bundle
from scaleport.errors import ScaleportError, UsageError, first_line
from scaleport.grid import Grid

_LENGTHS: Final = {"N": 1, "H": 11, "W": 13, "Ho": 22, "Wo": 26, "S": 2}


@dataclass(frozen=True)
class Coverage:
    """The operations of one graph on one backend.

    Attributes:
        operations: how many there are, after what the backend folds on loading.
        kinds: different kinds among them.
        places: operations by what runs them, e.g. a provider of ONNX Runtime.
        unsupported: kinds that the backend does not take.
        note: why nothing is known, if nothing is.
    """

    format: str
    precision: str
    stage: str
    operations: int = 0
    kinds: int = 0
    places: dict[str, int] | None = None
    unsupported: tuple[str, ...] = ()
    note: str = ""


def coverage_of(bundle: Bundle, backend: str, precision: str) -> tuple[Coverage, ...]:
    """Operations of every stage of a bundle on a backend, whether it can run them here or not.

    ONNX Runtime is asked by running the graph once with its profiler, which says what each
    operation really ran on; OpenVINO and TensorRT are asked whether they take the graph. For Core
    ML the evaluator's table is asked, which is what runs where there is no Mac. Whole graphs are
    left out: they are the stages once more.

    Raises:
        UsageError: if this is not known of the backend.
    """
    if backend not in _COUNTERS:
        raise UsageError(f"coverage is not known of backend {backend!r}")
    form, count = _COUNTERS[backend]
    found = []
    for graph in bundle.graphs(form, None, precision):
        if graph.stage.startswith("whole"):
            continue
        try:
            made = count(bundle.file(graph.path), graph)
        except ImportError as error:
            made = Coverage(form, precision, graph.stage, note=f"{error.name} is not installed")
        except ScaleportError as error:
            made = Coverage(form, precision, graph.stage, note=" ".join(str(error).split()))
        found.append(made)
    return tuple(found)


def _feeds(graph: Graph) -> dict[str, Any]:
    grid = Grid.from_size(_LENGTHS["H"], _LENGTHS["W"], _LENGTHS["Ho"], _LENGTHS["Wo"])
    known = {**grid.feeds(), "cell": grid.cell}
    feeds = {}
    for tensor in graph.inputs:
        shape = [d if isinstance(d, int) else _LENGTHS.get(d, 1) for d in tensor.shape]
        value = known.get(tensor.name)
        feeds[tensor.name] = np.full(shape, 0.5, tensor.dtype) if value is None else value
    return feeds


def _onnxruntime(path: Path, graph: Graph) -> Coverage:
    import onnxruntime

    from scaleport.runtimes.onnxruntime import OnnxRuntimeBackend

    wanted = OnnxRuntimeBackend().availability().device
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        settings.profile_file_prefix = str(Path(scratch) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                str(path), settings, providers=list(dict.fromkeys([wanted, "CPUExecutionProvider"]))
            )
            session.run(None, _feeds(graph))
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        except Exception as error:
            return Coverage("onnx", graph.precision, graph.stage, note=first_line(error))
    ran = {
        event["name"]: event["args"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    places = Counter(str(args.get("provider", "unknown")) for args in ran.values())
    kinds = {str(args.get("op_name", "")) for args in ran.values()}
    return Coverage("onnx", graph.precision, graph.stage, len(ran), len(kinds), dict(places))


def _openvino(path: Path, graph: Graph) -> Coverage:
    import openvino  # noqa: F401

    from scaleport.runtimes.openvino import shared_core

    core = shared_core()
    model = core.read_model(str(path))
    names = {
        op.get_friendly_name(): op.get_type_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() not in ("Parameter", "Constant", "Result")
    }
    taken = core.query_model(model, "CPU")
    places = Counter(str(taken[name]) for name in names if name in taken)
    missing = tuple(sorted({kind for name, kind in names.items() if name not in taken}))
    return Coverage(
        "openvino",
        graph.precision,
        graph.stage,
        len(names),
        len(set(names.values())),
        dict(places),
        missing,
    )


def _coreml(path: Path, graph: Graph) -> Coverage:
    from scaleport.runtimes.mil import read_program
    from scaleport.runtimes.mil.call import OPERATIONS

    operations = read_program(path).operations
    kinds = {operation.kind for operation in operations}
    missing = tuple(sorted(kinds - set(OPERATIONS)))
    known = sum(operation.kind in OPERATIONS for operation in operations)
    places = {"MIL evaluator": known}
    return Coverage(
        "coreml", graph.precision, graph.stage, len(operations), len(kinds), places, missing
    )


def _tensorrt(path: Path, graph: Graph) -> Coverage:
    from scaleport.export.tensorrt_network import NetworkBuild
    from scaleport.runtimes.engine_library import installed, logged

    libraries = installed()
    if not libraries:
        raise UsageError("neither TensorRT nor TensorRT-RTX is installed")
    # The RTX library parses on machines without a GPU as well.
    library = libraries[-1]
    with logged(library) as (logger, messages):
        build = NetworkBuild(library, logger, messages, path)
        build.parse()
        layers = [build.network.get_layer(i) for i in range(build.network.num_layers)]
        kinds = Counter(str(layer.type) for layer in layers)
    places = {f"{library.title}, parsed and not run": len(layers)}
    return Coverage("onnx", graph.precision, graph.stage, len(layers), len(kinds), places)


_COUNTERS: Final[dict[str, tuple[str, Callable[[Path, Graph], Coverage]]]] = {
    "onnxruntime": ("onnx", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "coreml": ("coreml", _coreml),
    "tensorrt": ("onnx", _tensorrt),
}


def is_known(backend: str) -> bool:
    """Whether coverage can be told of a backend."""
    return backend in _COUNTERS
