"""What counts as equal: thresholds, and the judgement of results that are already measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import msgspec

from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.errors import UsageError

NOT_RUN: Final = "not run: "
"""How an entry of :attr:`Parity.device` begins for a backend that was left out, with the reason."""

EVALUATED: Final = "evaluated, not run on Apple hardware"
"""What is said of Core ML graphs that no Core ML ran."""


@dataclass(frozen=True)
class Gate:
    """Limits of one precision, both against the PyTorch reference in fp32.

    Attributes:
        max_abs: largest absolute difference of a sample; infinity sets no limit.
        psnr: least PSNR in dB at peak 1; minus infinity sets no limit.
    """

    max_abs: float = math.inf
    psnr: float = -math.inf

    def __post_init__(self) -> None:
        """Refuse numbers that would let everything or nothing pass by mistake."""
        if math.isnan(self.max_abs) or math.isnan(self.psnr) or self.max_abs < 0:
            raise UsageError(f"a gate needs a max_abs of 0 or more and a PSNR, got {self}")

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        found = {"max_abs": self.max_abs, "psnr": self.psnr}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def failure(self, max_abs: float, psnr: float) -> str:
        """What is outside the limits, in words; empty if nothing is. NaN is outside."""
        reasons = []
        if not max_abs <= self.max_abs:
            reasons.append(f"max abs {max_abs:.2e} over {self.max_abs:.2e}")
        if not psnr >= self.psnr:
            reasons.append(f"PSNR {psnr:.1f} dB under {self.psnr:.1f} dB")
        return ", ".join(reasons)


@dataclass(frozen=True)
class Gates:
    """The gates of a comparison, one per precision.

    int8 has none: its quality is judged against ground truth, not against the reference.
    """

    fp32: Gate = field(default_factory=lambda: Gate(1e-4, 80.0))
    fp16: Gate = field(default_factory=lambda: Gate(psnr=55.0))

    def of(self, precision: str) -> Gate:
        """The gate of a precision.

        Raises:
            UsageError: if the precision has none.
        """
        gates = {"fp32": self.fp32, "fp16": self.fp16}
        if precision not in gates:
            raise UsageError(
                f"there is no parity gate for precision {precision!r}; known: {', '.join(gates)}"
            )
        return gates[precision]

    def limits(self) -> dict[str, dict[str, float]]:
        """All limits that are set, as the manifest stores them."""
        return {"fp32": self.fp32.limits(), "fp16": self.fp16.limits()}


def judge(result: ParityResult, gates: Gates) -> ParityResult:
    """Judge one measured result anew.

    A result without a measurement (an error, NaN, a refusal that was asked for) keeps its verdict:
    no threshold can change it. Equal images have an infinite PSNR, which JSON cannot hold: they are
    stored with ``max_abs`` 0 and without ``psnr``.

    Raises:
        UsageError: if its precision has no gate.
    """
    if result.max_abs is None:
        return result
    psnr = result.psnr
    if psnr is None:
        psnr = math.inf if result.max_abs == 0 else math.nan
    reason = gates.of(result.precision).failure(result.max_abs, psnr)
    return msgspec.structs.replace(result, passed=not reason, note=reason)


def rejudge(parity: Parity, gates: Gates) -> Parity:
    """Judge stored results anew, without running anything.

    Raises:
        UsageError: if the precision of a result has no gate.
    """
    results = tuple(judge(result, gates) for result in parity.results)
    return msgspec.structs.replace(parity, gates=gates.limits(), results=results)


def passed(parity: Parity) -> bool:
    """Whether something was compared and all of it is within the gates."""
    compared = any(result.max_abs is not None for result in parity.results)
    return compared and all(result.passed for result in parity.results)


def not_run(parity: Parity) -> dict[str, str]:
    """Backends that were left out, with the reason. They have not passed anything."""
    return {
        name: text.removeprefix(NOT_RUN)
        for name, text in parity.device.items()
        if text.startswith(NOT_RUN)
    }


def evaluated(parity: Parity) -> dict[str, str]:
    """Backends whose graphs a stand-in computed, with what has to be said beside every verdict.

    Core ML runs on Apple hardware only; elsewhere the numbers are those of the evaluator of
    :mod:`scaleport.runtimes.mil`.
    """
    from scaleport.runtimes.coreml import EVALUATOR

    return {
        name: EVALUATED for name, device in parity.device.items() if device.startswith(EVALUATOR)
    }
