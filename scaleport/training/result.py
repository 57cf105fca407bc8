"""How a run tells of itself, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Report = Callable[[int, float, "float | None"], None]
"""Called with a step, its loss and, where it was measured, the validation PSNR in dB."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when a signal stopped it before the last step."""
    model: Path | None
    """The weights of a finished run (averaged ones if the recipe asks for an average)."""
