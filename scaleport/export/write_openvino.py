"""OpenVINO IR of a bundle, converted from its ONNX graphs."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from scaleport.bundle.manifest import Graph
from scaleport.errors import BackendError, ExportError, last_line
from scaleport.export.plan import ExportPlan
from scaleport.runtimes.openvino_core import shared_core

_INEXACT = (
    "OpenVINO's division is off by one bit now and then, and this network reads positions through "
    "octaves that make another pixel of it; its stages take the grid as input and are exact"
)

_COUNTED = re.compile(r"[A-Za-z0-9]+_[0-9]+")


def write(plan: ExportPlan) -> list[Graph]:
    """Write every stage and the whole graph ``image, scale -> upscaled`` in every precision.

    The whole graph is left out for a network that needs exact offsets, and the plan says so.

    Raises:
        BackendError: if openvino is not installed.
        ExportError: if it refuses a graph.
    """
    graphs = []
    for precision in plan.options.precisions:
        for stage in plan.written_stages(precision):
            path = f"openvino/{precision}/{stage.name}.xml"
            plan.step(f"openvino {precision} {stage.name}")
            convert(plan.final_stage(precision, stage), plan.place(path))
            graphs.append(plan.stage_entry(stage, precision, path))
        for scale, stage in plan.whole_stages(precision):
            path = f"openvino/{precision}/{stage.name}.xml"
            convert(plan.final_whole(precision, scale, stage), plan.place(path))
            graphs.append(plan.stage_entry(stage, precision, path))
        if plan.lengths:
            continue
        if plan.network.upsampler.exact_offsets:
            plan.skipped["openvino-whole"] = _INEXACT
            continue
        path = f"openvino/{precision}/whole.xml"
        plan.step(f"openvino {precision} whole")
        convert(plan.onnx_whole(precision, "whole"), plan.place(path))
        graphs.append(plan.whole_entry("whole", precision, path))
    return graphs


def convert(model: onnx.ModelProto, target: Path) -> None:
    """Convert one ONNX model to IR, ``target`` (.xml) and the weights beside it (.bin).

    Weights keep the type they have in the graph: the precision was decided there.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            "openvino is not installed: pip install 'scaleport[openvino]'"
        ) from error
    try:
        converted = shared_core().read_model(model.SerializeToString())
        for number, operation in enumerate(converted.get_ordered_ops()):
            # Names of its own making count on through the life of the process.
            if _COUNTED.fullmatch(operation.get_friendly_name()):
                operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(converted, str(target), compress_to_fp16=False)
    except Exception as error:
        reason = last_line(error)
        raise ExportError(f"OpenVINO refuses graph {model.graph.name!r}: {reason}") from error
