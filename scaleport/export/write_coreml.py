"""Core ML packages of a bundle, lowered from the stages themselves."""

from __future__ import annotations

from scaleport.bundle.manifest import Graph
from scaleport.export.coreml import CoreMLOptions, export_stage
from scaleport.export.plan import ExportPlan


def write(plan: ExportPlan) -> list[Graph]:
    """Write every stage in every precision.

    There is no whole graph: a Core ML program cannot take its output size from a value.

    Raises:
        BackendError: if coremltools is not installed.
        ExportError: if it refuses a stage.
    """
    options = CoreMLOptions(
        height=plan.options.height,
        width=plan.options.width,
        max_scale=plan.network.limits.max,
    )
    graphs = []
    for precision in plan.options.precisions:
        for stage in plan.stages(precision):
            plan.step(f"coreml {precision} {stage.name}")
            path = f"coreml/{precision}/{stage.name}.mlpackage"
            export_stage(stage, plan.place(path), options)
            graphs.append(plan.stage_entry(stage, precision, path))
    return graphs
