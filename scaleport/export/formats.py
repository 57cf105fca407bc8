"""The graph formats an export can write, each by one function in a module of its own.

A new format is one module with ``write(plan) -> list[Graph]`` and one line here. ``write`` raises
:class:`scaleport.errors.BackendError` when its tools are missing or cannot work on this machine;
the export then goes on without the format and the manifest says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Final

from scaleport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph
    from scaleport.export.plan import ExportPlan

FORMATS: dict[str, str] = {
    "onnx": "scaleport.export.onnx",
    "openvino": "scaleport.export.write_openvino",
    "tensorrt": "scaleport.export.write_tensorrt",
    "coreml": "scaleport.export.write_coreml",
    "executorch": "scaleport.export.write_executorch",
}
"""Format name to module. ONNX comes first: it is the source of OpenVINO and TensorRT."""

FIXED_ONLY: Final = ("executorch",)
"""Formats whose graphs have fixed shapes: nobody gets them who does not ask for them."""

ANY_SHAPE: Final = tuple(name for name in FORMATS if name not in FIXED_ONLY)
"""Formats whose graphs take every size."""

ALWAYS = "onnx"
"""The format that every bundle holds: the others can be made from it again."""


def check_formats(names: Collection[str]) -> None:
    """Refuse names of no format, and no names.

    Raises:
        UsageError: of those that are unknown; the message lists the known ones.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        shown = ", ".join(map(repr, unknown)) or "(none)"
        hint = did_you_mean(unknown[0].lower(), FORMATS) if unknown else ""
        raise UsageError(f"unknown format {shown}{hint}; known: {', '.join(FORMATS)}")


def writer_of(name: str) -> Callable[[ExportPlan], list[Graph]]:
    """The ``write`` function of a format.

    Raises:
        UsageError: if the name is unknown; the message lists the known ones.
    """
    check_formats((name,))
    write: Callable[[ExportPlan], list[Graph]] = import_module(FORMATS[name]).write
    return write
