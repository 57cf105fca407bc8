"""What a bisection is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scaleport.errors import UsageError
from scaleport.validation.bisection.divergence import TOLERANCES, Compared, Divergence

SHAPE: Final = (15, 21)
"""LR size of the picture: odd, and on a tie of the rounding rule at the usual scale."""
SCALE: Final = 2.7


@dataclass(frozen=True)
class Bisection:
    """The comparison, and the first divergence if there is one.

    ``device`` is the device that ran the graphs. ``notes`` are remarks for people.
    """

    backend: str
    precision: str
    device: str
    shape: tuple[int, int]
    scale: tuple[float, float]
    tolerance: float
    compared: tuple[Compared, ...]
    divergence: Divergence | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BisectOptions:
    """What is compared.

    Attributes:
        backend: a backend that can show the tensors inside a graph, such as ``onnxruntime``,
            ``openvino``, ``coreml`` or ``tensorrt``; empty for the first that can run here, in
            the order in which an export writes formats.
        precision: ``fp32`` or ``fp16``; both are compared with float32.
        shape: LR size of the synthetic picture that is used.
        scale: requested scale; if None, 2.7 or the nearest scale of the model.
        tolerance: largest difference of a tensor, as a share of its largest value or of 1,
            whichever is more; that of :data:`TOLERANCES` if None.
        stages: only these; ``whole`` is the whole graph, ``whole_size`` that of TensorRT. Empty
            for all.
        checkpoint: weights of the reference; None for the checkpoint in the bundle.
    """

    backend: str = ""
    precision: str = "fp32"
    shape: tuple[int, int] = SHAPE
    scale: float | tuple[float, float] | None = None
    tolerance: float | None = None
    stages: tuple[str, ...] = ()
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        """Check the precision."""
        if self.precision not in TOLERANCES:
            raise UsageError(
                f"bisect compares {' and '.join(TOLERANCES)}, not {self.precision!r}: int8 is "
                "judged by the quality that it loses"
            )
