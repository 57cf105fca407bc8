"""What depends on the format of a graph, for tools that are not the export itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
import torch

from scaleport.errors import ExportError, UsageError
from scaleport.export import coreml
from scaleport.export.onnx import save
from scaleport.export.onnx import trace_program as trace_onnx
from scaleport.export.write_openvino import convert
from scaleport.models.base import Stage

REUSED_NAMES: Final = frozenset({"coreml"})
"""Formats whose exporter may give a tensor of its own the name of another tensor's node."""


def trace_for(format: str, stage: Stage) -> torch.export.ExportedProgram:
    """The program that a format's exporter lowers; nodes are named as its tensors are.

    Raises:
        ExportError: if the stage cannot be traced.
    """
    if format == "coreml":
        with coreml.quiet():
            return coreml.trace_program(stage)
    traced = trace_onnx(stage)[0].exported_program
    if traced is None:
        raise ExportError(f"PyTorch keeps no traced program of stage {stage.name!r}")
    return traced


def save_as(format: str, model: onnx.ModelProto, folder: Path, stage: str) -> Path:
    """Write an ONNX model of a stage into a folder, in a format that is converted in one step.

    Returns:
        The file to load.

    Raises:
        UsageError: for other formats.
        BackendError: if the format's library is missing.
        ExportError: if it refuses the model.
    """
    if format == "onnx":
        path = folder / f"{stage}.onnx"
        save(model, path)
    elif format == "openvino":
        path = folder / f"{stage}.xml"
        convert(model, path)
    else:
        raise UsageError(f"a graph cannot be written as {format} here, only onnx and openvino")
    return path
