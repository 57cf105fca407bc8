"""ExecuTorch programs of a bundle, lowered from the stages themselves through XNNPACK.

Programs have fixed shapes: with dynamic lengths ExecuTorch's converter fails. What its XNNPACK
partitioner takes becomes one or more delegates; the rest, such as the gathers of a query decoder,
runs on ExecuTorch's portable operators.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scaleport.atomic import write_bytes
from scaleport.bundle.manifest import Graph, Precision
from scaleport.errors import ExportError, first_line
from scaleport.export.capture import TraceSizes, example_inputs, quiet
from scaleport.export.plan import ExportPlan
from scaleport.extras import needs
from scaleport.models.base import Stage, listed
from scaleport.runtimes.base import GraphFile, Session, SessionOptions, host
from scaleport.runtimes.executorch import ExecuTorchBackend

_NO_INT8 = "ExecuTorch programs are written in fp32 and fp16"
_BOUNDS = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference to the stage in the check of a written program, relative to its largest
value or 1."""


def write(plan: ExportPlan) -> list[Graph]:
    """Write every stage, and the graphs from an image to its pixels, in fp32 and fp16.

    Raises:
        BackendError: if executorch is not installed.
        ExportError: if it refuses a stage, or the program computes something else.
    """
    sizes = TraceSizes(*(plan.lengths[name] for name in ("N", "H", "W", "Ho", "Wo")))
    graphs = []
    for precision in plan.options.precisions:
        if precision == "int8":
            plan.skipped["executorch-int8"] = _NO_INT8
            continue
        wholes = [stage for _, stage in plan.whole_stages(precision)]
        for stage in (*plan.written_stages(precision), *wholes):
            plan.step(f"executorch {precision} {stage.name}")
            path = f"executorch/{precision}/{stage.name}.pte"
            entry = plan.stage_entry(stage, precision, path)
            export_stage(stage, plan.place(path), sizes, precision)
            graphs.append(entry)
    return graphs


def export_stage(stage: Stage, target: Path, sizes: TraceSizes, precision: Precision) -> None:
    """Lower one stage to a program of fixed shape, write it and compare it with the stage.

    Args:
        stage: the stage; its module is switched to eval mode.
        target: the file to write, ``.pte``.
        sizes: lengths of the named dimensions.
        precision: that of the stage's module, which decides how exact the program must be.

    Raises:
        BackendError: if executorch is not installed.
        ExportError: if it refuses the stage, or the program computes something else.
        OutputError: if the target cannot be written.
    """
    with quiet("torch", "torchao"), needs("executorch", "an ExecuTorch program"):
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    inputs = example_inputs(stage, sizes)
    try:
        with quiet("torch", "torchao"), torch.no_grad():
            traced = torch.export.export(stage.module.eval(), inputs, strict=False)
            edge = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()])
            program = edge.to_executorch().buffer
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        raise ExportError(f"ExecuTorch refuses stage {stage.name!r}: {reason}") from error
    write_bytes(target, program)
    _check(stage, inputs, target, precision)


def _check(
    stage: Stage, inputs: tuple[torch.Tensor, ...], target: Path, precision: Precision
) -> None:
    """Run the written program beside the stage.

    Raises:
        ExportError: if they differ.
    """
    names = [tuple(port.name for port in ports) for ports in (stage.inputs, stage.outputs)]
    file = GraphFile(target, stage.name, precision, *names)
    session: Session = ExecuTorchBackend().load(file, SessionOptions())
    found = session.run(
        {port.name: t.numpy() for port, t in zip(stage.inputs, inputs, strict=True)}
    )
    session.close()
    with torch.no_grad():
        wanted = listed(stage.module(*inputs))
    for port, want in zip(stage.outputs, wanted, strict=True):
        got = host(found[port.name])
        if got.shape != tuple(want.shape):
            raise ExportError(f"the ExecuTorch program of stage {stage.name!r} has another shape")
        bound = _BOUNDS[precision] * max(1.0, float(want.abs().max()))
        error = float(np.abs(want.numpy() - got).max())
        if not error <= bound:
            raise ExportError(
                f"the ExecuTorch program of stage {stage.name!r} differs from the network: output "
                f"{port.name!r} is off by {error:.3g}"
            )
