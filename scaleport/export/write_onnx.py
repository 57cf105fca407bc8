"""ONNX graphs of a bundle."""

from __future__ import annotations

from scaleport.bundle.manifest import Graph
from scaleport.export.onnx import save
from scaleport.export.plan import FRONTS, ExportPlan


def write(plan: ExportPlan) -> list[Graph]:
    """Write every stage and the whole graphs in every precision."""
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
        if plan.lengths:
            continue
        for name in FRONTS:
            path = f"onnx/{precision}/{name}.onnx"
            save(plan.onnx_whole(precision, name), plan.place(path))
            graphs.append(plan.whole_entry(name, precision, path))
    return graphs
