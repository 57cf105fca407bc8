"""What counts as equal: thresholds, and the judgement of results that are already measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.errors import UsageError
from scaleport.runtimes.base import INFERENCE_PRECISIONS

NOT_RUN: Final = "not run: "
"""How an entry of :attr:`Parity.device` begins for a backend that was left out, with the reason."""

EVALUATED: Final = "evaluated, not run on Apple hardware"
"""What is said of Core ML graphs that no Core ML ran."""


PRECISIONS: Final = ("fp32", "fp16")
"""Precisions of graphs that are compared with the reference."""
TF32_PSNR: Final = 60.0
BF16_PSNR: Final = 40.0
"""dB; see docs/measurements/parity.md for what was measured."""


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
        """The violated limits, in words; empty if there are none. NaN violates every limit."""
        reasons = []
        if not max_abs <= self.max_abs:
            reasons.append(f"max abs {max_abs:.2e} over {self.max_abs:.2e}")
        if not psnr >= self.psnr:
            reasons.append(f"PSNR {psnr:.1f} dB under {self.psnr:.1f} dB")
        return ", ".join(reasons)


@dataclass(frozen=True)
class Gates:
    """The gates of a comparison, one per precision of graphs and of inference.

    int8 has none: its quality is judged against ground truth, not against the reference.
    """

    fp32: Gate = field(default_factory=lambda: Gate(1e-4, 80.0))
    fp16: Gate = field(default_factory=lambda: Gate(psnr=55.0))
    tf32: Gate = field(default_factory=lambda: Gate(psnr=TF32_PSNR))
    bf16: Gate = field(default_factory=lambda: Gate(psnr=BF16_PSNR))

    def of(self, precision: str, inference_precision: str = "") -> Gate:
        """The gate of graphs in a precision.

        With another inference precision, the wider of the two gates counts, because the
        result has both roundings.

        Raises:
            UsageError: if a precision has none.
        """
        own = self._gate(precision, PRECISIONS)
        if inference_precision in ("", "fp32"):
            return own
        other = self._gate(inference_precision, INFERENCE_PRECISIONS)
        return other if precision == "fp32" else _wider(own, other)

    def _gate(self, precision: str, known: Collection[str]) -> Gate:
        if precision not in known:
            raise UsageError(
                f"there is no parity gate for precision {precision!r}; known: {', '.join(known)}"
            )
        gate: Gate = getattr(self, precision)
        return gate

    def limits(self, inference_precisions: Iterable[str] = ()) -> dict[str, dict[str, float]]:
        """Limits that are set, as the manifest stores them.

        Args:
            inference_precisions: those that were asked for; the limits of others are left out.
        """
        names = dict.fromkeys((*PRECISIONS, *filter(None, inference_precisions)))
        return {name: getattr(self, name).limits() for name in names}


def _wider(one: Gate, other: Gate) -> Gate:
    return Gate(max(one.max_abs, other.max_abs), min(one.psnr, other.psnr))


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
    gate = gates.of(result.precision, result.inference_precision)
    reason = gate.failure(result.max_abs, psnr)
    return msgspec.structs.replace(result, passed=not reason, note=reason)


def rejudge(parity: Parity, gates: Gates) -> Parity:
    """Judge stored results anew, without running anything.

    Raises:
        UsageError: if the precision of a result has no gate.
    """
    results = tuple(judge(result, gates) for result in parity.results)
    limits = gates.limits(result.inference_precision for result in results)
    return msgspec.structs.replace(parity, gates=limits, results=results)


def passed(parity: Parity) -> bool:
    """Whether at least one case was compared and every case is within its gate."""
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
    :mod:`scaleport.mil`.
    """
    from scaleport.runtimes.coreml import EVALUATOR

    return {
        name: EVALUATED for name, device in parity.device.items() if device.startswith(EVALUATOR)
    }
