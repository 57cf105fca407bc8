"""Timing contenders that take turns, and what the figures are to be read with: the machine.

A processor's speed drifts with heat and with what else runs. A ratio of times is therefore taken
within a round, where both were measured one after the other, and its median over rounds.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scaleport.extras import installed_versions
from scaleport.runtimes.registry import own_backends

Work = Callable[[], object]
Seconds = dict[str, list[float]]

_MOST_CALLS: Final = 1000


@dataclass(frozen=True)
class Spread:
    """Median of repeated measurements, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; the quartiles of one value are itself."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


def rounds(
    contenders: Mapping[str, Work],
    count: int,
    least: float = 0.0,
    after_round: Callable[[int], object] | None = None,
) -> Seconds:
    """Seconds per call of each contender in each round; all take turns, after a round unmeasured.

    Every other round goes backwards, so that nobody always follows the same neighbour.

    Args:
        contenders: what is measured, by name.
        count: rounds, at least 1.
        least: seconds that one turn lasts at least; quick contenders are called several times.
        after_round: called with the number of rounds done, the unmeasured one included.
    """
    seconds: Seconds = {name: [] for name in contenders}
    calls = dict.fromkeys(contenders, 1)
    for turn in range(count + 1):
        order = list(contenders.items())
        for name, work in order if turn % 2 else reversed(order):
            start = time.perf_counter()
            for _ in range(calls[name]):
                work()
            taken = (time.perf_counter() - start) / calls[name]
            if turn:
                seconds[name].append(taken)
            elif least:
                # Once more: the first call of all also loads graphs and allocates.
                start = time.perf_counter()
                work()
                again = max(time.perf_counter() - start, 1e-6)
                calls[name] = min(_MOST_CALLS, max(1, math.ceil(least / again)))
        if after_round is not None:
            after_round(turn + 1)
    return seconds


def ratio(seconds: Seconds, slow: str, fast: str) -> float:
    """Median over rounds of how many times ``fast`` is faster than ``slow``."""
    return ratios(seconds, slow, fast).median


def ratios(seconds: Seconds, slow: str, fast: str) -> Spread:
    """The same with its quartiles."""
    return Spread.of([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


def machine() -> str:
    """Name of the processor and how many of its cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} logical cores"


def surroundings(threads: int) -> dict[str, Any]:
    """What a figure is to be read with: processor, system, threads, versions, load."""
    packages = (name for backend in own_backends() for name in backend.packages)
    installed = installed_versions(("scaleport", "numpy", *packages))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "machine": machine(),
        "system": platform.platform(),
        "threads": threads,
        "load_before": load,
        "versions": {"python": platform.python_version()} | installed,
    }
