"""Core ML packages of a bundle, lowered from the stages themselves."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from scaleport.bundle.manifest import Graph
from scaleport.export.coreml import export_stage
from scaleport.export.coreml_options import CoreMLOptions
from scaleport.export.plan import ExportPlan


def write(plan: ExportPlan) -> list[Graph]:
    """Write every stage in every precision; int8 is that of the weights of the float16 program.

    There is no whole graph of any scale: a Core ML program cannot take its output size from a
    value. With fixed shapes there is one for each scale.

    Raises:
        BackendError: if coremltools is not installed.
        ExportError: if it refuses a stage.
    """
    options = CoreMLOptions(
        height=plan.options.height,
        width=plan.options.width,
        max_scale=plan.network.limits.max,
        fixed=plan.lengths,
        sizes=() if plan.options.static is None else plan.options.static.sizes,
    )
    graphs = []
    for precision in plan.options.precisions:
        int8 = precision == "int8"
        chosen = replace(options, int8_weights=int8)
        types = "fp16" if int8 else precision
        wholes = [stage for _, stage in plan.whole_stages(types)]
        for stage in (*plan.written_stages(types), *wholes):
            plan.step(f"coreml {precision} {stage.name}")
            path = f"coreml/{precision}/{stage.name}.mlpackage"
            export_stage(stage, plan.place(path), chosen, plan.captured(types, stage))
            entry = plan.stage_entry(stage, precision, path)
            if int8:
                parts = f"weights alone are int8; {stage.float32_parts}".rstrip("; ")
                entry = msgspec.structs.replace(entry, float32_nodes=parts)
            if chosen.enumerates(stage):
                sizes = ", ".join(f"{width}x{height}" for height, width in chosen.sizes)
                entry = msgspec.structs.replace(entry, target={"sizes": sizes})
            graphs.append(entry)
    return graphs
