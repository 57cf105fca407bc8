"""What a run of the parity grid is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scaleport.validation.parity.cases import Selection
from scaleport.validation.parity.gates import Gates


@dataclass(frozen=True)
class ValidationOptions:
    """Which cases are run, and by which gates they are judged.

    Attributes:
        backends: names, each of which must be usable; None for all usable ones.
        precisions: ``fp32`` and ``fp16``; None for all of these in the bundle.
        selection: ``full`` or ``quick``, see :func:`scaleport.validation.parity.cases.plan_cases`.
        gates: thresholds.
        threads: processor threads; 0 leaves it to PyTorch and the backends.
        inference_precision: compute in this precision instead of that of the graphs, see
            :func:`scaleport.runtimes.upscaler.load`; judged by a gate of its own. Backends that
            cannot are not run.
        store: store the results in the bundle's manifest, which removes its signature.
    """

    backends: Sequence[str] | None = None
    precisions: Sequence[str] | None = None
    selection: Selection = "full"
    gates: Gates = field(default_factory=Gates)
    threads: int = 0
    inference_precision: str = ""
    store: bool = False
