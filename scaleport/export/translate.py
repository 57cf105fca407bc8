"""The last steps of PyTorch's ONNX exporter, without the capturing and rewriting before them.

``torch.onnx.export`` captures a program, captures it again to rewrite operators, and reads its
table of operators anew at every call. A program that needs no rewriting goes straight to the
translation here, and the table is read once. These are inner functions of PyTorch: where a version
has them under other names, :func:`translation` is None and callers use ``torch.onnx.export``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from scaleport.export.capture import quiet, swift, with_views
from scaleport.models.scan_graph import translations

OPSET = 20
IR_VERSION = 10


@dataclass(frozen=True)
class Translation:
    """What the installed PyTorch offers: which operators are known, and the translation."""

    known: Callable[[Any], bool]
    """Whether an operator is translated as it is."""
    run: Callable[[torch.export.ExportedProgram], torch.onnx.ONNXProgram]
    """Translate a program of known operators; its graph gets explicit conversions of types."""


@functools.cache
def translation() -> Translation | None:
    """The inner functions of the installed PyTorch, or None if it has others."""
    with quiet():
        try:
            from torch.onnx._internal import _lazy_import
            from torch.onnx._internal.exporter import _core, _fx_passes, _registration

            registry = _registration.ONNXRegistry.from_torchlib(opset_version=OPSET)
            for operator, written in translations().items():
                registry.register_op(operator, written)
            promote = _fx_passes.insert_type_promotion_nodes
            translate = _core._exported_program_to_onnx_program
            lazy: Any = _lazy_import
            raised = lazy.onnxscript_apis.convert_version
            known = registry.is_registered
        except (ImportError, AttributeError, TypeError):
            return None

    def run(program: torch.export.ExportedProgram) -> torch.onnx.ONNXProgram:
        config: Any = torch.fx.experimental._config
        with quiet(), swift(), torch.no_grad(), config.patch(backed_size_oblivious=True):
            promote(program.graph_module)
            with_views(program)
            made: torch.onnx.ONNXProgram = translate(program, registry=registry)
            # Much of the table is written in an older opset.
            made.model = raised(made.model, OPSET)
            made.optimize()
        return made

    return Translation(known, run)
