"""OpenVINO: every tensor of a graph, and the operations that the CPU takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import BackendError, first_line
from scaleport.runtimes.inside import Inner, Operations
from scaleport.runtimes.openvino_core import shared_core

_NO_OPERATIONS = ("Parameter", "Constant", "Result")


def inner(path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
    """Run an OpenVINO IR on the CPU in the precision of the graph and return all its tensors.

    Raises:
        BackendError: if OpenVINO is missing or refuses the graph.
    """
    try:
        core = shared_core()
        model = core.read_model(str(path))
        ports = _ports(model)
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
        Inner(name, kind, known[tuple(names)])
        for kind, names, _ in ports
        if tuple(names) in known
        for name in names
    ]


def _ports(model: Any) -> list[tuple[str, list[str], Any]]:
    """What operations return that has names: kind of the operation, names, port."""
    ports: list[tuple[str, list[str], Any]] = []
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in _NO_OPERATIONS:
            named = (port for port in operation.outputs() if port.get_names())
            ports += [(kind, sorted(port.get_names()), port) for port in named]
    return ports


def operations(path: Path) -> Operations:
    """Count a graph's operations by device, as OpenVINO answers when asked.

    Raises:
        ImportError: if openvino is not installed.
    """
    import openvino  # noqa: F401

    core = shared_core()
    model = core.read_model(str(path))
    names = {
        op.get_friendly_name(): op.get_type_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() not in _NO_OPERATIONS
    }
    taken = core.query_model(model, "CPU")
    places = Counter(str(taken[name]) for name in names if name in taken)
    missing = tuple(sorted({kind for name, kind in names.items() if name not in taken}))
    return Operations(len(names), len(set(names.values())), dict(places), missing)
