"""ONNX Runtime: every tensor of a graph, and what runs its operations."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from scaleport.aliases import Array
from scaleport.bundle.manifest import Graph
from scaleport.errors import BackendError, first_line
from scaleport.runtimes.inside import Inner, Operations, trial_feeds
from scaleport.runtimes.onnx_inside import marked, named


def inner(path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
    """Run an ONNX graph on the CPU, unoptimised, and return all its tensors.

    Raises:
        BackendError: if Polygraphy or ONNX Runtime is missing, or refuses the graph.
    """
    import onnxruntime

    model, all_outputs = marked(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            all_outputs.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_outputs()]
        results = session.run(names, dict(feeds))
    except Exception as error:
        raise BackendError(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from error
    return named(model, dict(zip(names, results, strict=True)))


def operations(path: Path, graph: Graph, provider: str) -> Operations:
    """Count a graph's operations by provider: its profiler says what each really ran on.

    Raises:
        ImportError: if onnxruntime is not installed.
        BackendError: if it refuses the graph.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.enable_profiling = True
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    with tempfile.TemporaryDirectory() as scratch:
        settings.profile_file_prefix = str(Path(scratch) / "profile")
        try:
            session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
            session.run(None, trial_feeds(graph))
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        except Exception as error:
            raise BackendError(first_line(error)) from error
    ran = {
        event["name"]: event["args"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    places = Counter(str(args.get("provider", "unknown")) for args in ran.values())
    kinds = {str(args.get("op_name", "")) for args in ran.values()}
    return Operations(len(ran), len(kinds), dict(places))
