"""Naming the operation behind a NaN."""

from __future__ import annotations

from scaleport.bundle.reader import Bundle
from scaleport.errors import NotFiniteError


def locate(bundle: Bundle, precision: str, error: NotFiniteError) -> str:
    """Where a failed run first made NaN or infinity, as the end of a sentence.

    The ONNX graph of the same stage and precision is run once more, operation by operation. Empty
    if there is none, its tools are not installed, or nothing overflows in it.
    """
    try:
        import onnx

        from scaleport.export.overflow import first_overflow

        graph = bundle.graph("onnx", error.stage, precision)
        found = first_overflow(onnx.load(str(bundle.file(graph.path))), error.feeds)
    except Exception:
        # No graph, no tools, or one that cannot be read: the fault itself is what counts.
        return ""
    return f"; first in {found}" if found else ""
