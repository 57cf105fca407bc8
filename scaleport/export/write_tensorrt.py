"""TensorRT engines of a bundle, built from its ONNX graphs.

Engines are a cache: each is bound to a TensorRT version and to compute capabilities, and the ONNX
graph it was built from always ships beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import onnx

from scaleport.bundle.manifest import Graph, ScaleRange
from scaleport.export.onnx import save
from scaleport.export.plan import ExportPlan
from scaleport.export.qdq import symmetric
from scaleport.export.tensorrt import build_engine, profile_for


def write(plan: ExportPlan) -> list[Graph]:
    """Build an engine for every stage and for the whole graph ``image, size -> upscaled``.

    Raises:
        BackendError: if no TensorRT library is installed that can build here.
        ExportError: if it refuses a graph.
    """
    graphs = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in plan.options.precisions:
            jobs = []
            for stage in plan.written_stages(precision):
                path = f"tensorrt/{precision}/{stage.name}.engine"
                entry = plan.stage_entry(stage, precision, path)
                jobs.append((entry, plan.final_stage(precision, stage)))
            for scale, stage in plan.whole_stages(precision):
                path = f"tensorrt/{precision}/{stage.name}.engine"
                entry = plan.stage_entry(stage, precision, path)
                jobs.append((entry, plan.final_whole(precision, scale, stage)))
            if not plan.lengths:
                path = f"tensorrt/{precision}/whole_size.engine"
                entry = plan.whole_entry("whole_size", precision, path)
                jobs.append((entry, plan.onnx_whole(precision, "whole_size")))
            for entry, model in jobs:
                plan.step(f"tensorrt {precision} {entry.stage}")
                graphs.append(_build(plan, entry, model, Path(scratch)))
    return graphs


def _build(plan: ExportPlan, entry: Graph, model: onnx.ModelProto, scratch: Path) -> Graph:
    source = scratch / f"{entry.stage}.onnx"
    if entry.precision == "int8":
        # Not the graph of the other runtimes: it ships beside the engine that is made from it.
        model = symmetric(model)
        save(model, plan.place(str(Path(entry.path).with_suffix(".onnx").as_posix())))
    save(model, source)
    options = plan.options
    profile = profile_for(entry.inputs, options.height, options.width, scale_range(plan))
    info = build_engine(source, plan.place(entry.path), profile)
    return msgspec.structs.replace(entry, target=info.target())


def scale_range(plan: ExportPlan) -> ScaleRange:
    """The declared scales of a plan's network."""
    limits = plan.network.limits
    return ScaleRange(min=limits.min, max=limits.max, native=plan.natives)
