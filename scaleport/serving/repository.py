"""Model repositories for servers, whose requests carry the image and the scale.

* ``kserve``: MLServer with Scaleport's runtime inside; images of any size, in tiles.
* ``triton``: Triton Inference Server with its ONNX Runtime backend and the whole graphs.
* ``ovms``: OpenVINO Model Server with the whole graph.

Triton and OVMS run the whole graph: an image and all of its features must fit the memory. One
request may hold several images of one size, at one scale; servers cannot join requests, whose
scales differ.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from scaleport.atomic import written
from scaleport.bundle.manifest import Graph
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import OutputError, UsageError
from scaleport.runtimes.registry import SERVED
from scaleport.serving.tensors import Limits

IMPLEMENTATION: Final = "scaleport.serving.mlserver_runtime.ScaleportModel"

_TRITON_TYPES: Final = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
_KSERVE_INPUTS: Final = (
    ("image", "FP32", [-1, 3, -1, -1]),
    ("scale", "FP32", [2]),
)


@dataclass(frozen=True)
class ServeOptions:
    """How a repository's server runs; ports and workers are those of ``kserve`` only.

    Attributes:
        name: name of the model in requests.
        backend: backend of Scaleport's runtime.
        precision: ``fp32``, ``fp16`` or ``int8``; empty takes the first of the bundle.
        workers: processes that run the model; each has a copy of it.
        host: address to listen on.
        port: HTTP port; gRPC and metrics take the next two.
        limits: largest images and results.
    """

    name: str = "scaleport"
    backend: str = SERVED
    precision: str = ""
    workers: int = 1
    host: str = "127.0.0.1"
    port: int = 8080
    limits: Limits = field(default_factory=Limits)


def write_repository(bundle: Path, target: Path, server: str, options: ServeOptions) -> list[Path]:
    """Write a model repository.

    Args:
        bundle: the bundle to serve; it is copied.
        target: folder to write; must be new or empty.
        server: ``kserve``, ``triton`` or ``ovms``.
        options: see :class:`ServeOptions`.

    Returns:
        The files that configure the server.

    Raises:
        UsageError: if the server is unknown or the bundle lacks the graphs that it needs.
        OutputError: if the target holds something, or cannot be written.
        ArtifactError: if the bundle is damaged.
    """
    if server not in SERVERS:
        raise UsageError(f"unknown server {server!r}; known: {', '.join(SERVERS)}")
    if not options.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError(f"{options.name!r} cannot name a model; use letters, digits, - _ and .")
    opened = open_bundle(bundle, verify="all")
    write = SERVERS[server]
    with written(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target} exists and is not empty; choose another folder with -o")
        target.mkdir(parents=True, exist_ok=True)
        return write(opened, target, options)


def _write_kserve(bundle: Bundle, target: Path, options: ServeOptions) -> list[Path]:
    folder = target / options.name
    shutil.copytree(bundle.path, folder / "model.bundle")
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    extra: dict[str, Any] = {
        "backend": options.backend,
        "threads": threads,
        "limits": asdict(options.limits),
    }
    if options.precision:
        extra["precision"] = options.precision
    tensors = [{"name": n, "datatype": t, "shape": s} for n, t, s in _KSERVE_INPUTS]
    model = folder / "model-settings.json"
    _write_json(
        model,
        {
            "name": options.name,
            "implementation": IMPLEMENTATION,
            "platform": "scaleport",
            "inputs": tensors,
            "outputs": [{"name": "upscaled", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
            "parameters": {"uri": "./model.bundle", "extra": extra},
        },
    )
    settings = target / "settings.json"
    _write_json(
        settings,
        {
            "host": options.host,
            "http_port": options.port,
            "grpc_port": options.port + 1,
            "metrics_port": options.port + 2,
            "parallel_workers": options.workers,
            "debug": False,
        },
    )
    return [settings, model]


def _write_triton(bundle: Bundle, target: Path, options: ServeOptions) -> list[Path]:
    made = []
    for stage, suffix in (("whole", ""), ("whole_size", "-size")):
        graph = bundle.graph("onnx", stage, options.precision or "fp32")
        folder = target / f"{options.name}{suffix}"
        _copy_graph(bundle, graph, folder / "1", "model.onnx")
        config = folder / "config.pbtxt"
        ports = [
            f"{kind} [\n"
            + ",\n".join(
                f'  {{ name: "{port.name}" data_type: {_TRITON_TYPES[port.dtype]} '
                f"dims: {[d if isinstance(d, int) else -1 for d in port.shape]} }}"
                for port in declared
            )
            + "\n]\n"
            for kind, declared in (("input", graph.inputs), ("output", graph.outputs))
        ]
        config.write_text(
            f'name: "{options.name}{suffix}"\nbackend: "onnxruntime"\nmax_batch_size: 0\n'
            + "".join(ports)
        )
        made.append(config)
    return made


def _write_ovms(bundle: Bundle, target: Path, options: ServeOptions) -> list[Path]:
    form = "openvino" if "openvino" in bundle.formats() else "onnx"
    graph = bundle.graph(form, "whole", options.precision or "fp32")
    folder = target / options.name / "1"
    _copy_graph(bundle, graph, folder, f"model{Path(graph.path).suffix}")
    if graph.path.endswith(".xml"):
        weights = bundle.file(str(Path(graph.path).with_suffix(".bin").as_posix()))
        shutil.copyfile(weights, folder / "model.bin")
    config = target / "config.json"
    model = {"name": options.name, "base_path": f"/models/{options.name}"}
    _write_json(config, {"model_config_list": [{"config": model}]})
    return [config]


def _copy_graph(bundle: Bundle, graph: Graph, folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(bundle.file(graph.path), folder / name)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


SERVERS: Final[dict[str, Callable[[Bundle, Path, ServeOptions], list[Path]]]] = {
    "kserve": _write_kserve,
    "triton": _write_triton,
    "ovms": _write_ovms,
}
"""Servers that repositories are written for, by name."""
