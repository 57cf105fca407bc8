"""Parity results for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.runtimes.base import precision_text
from scaleport.validation.parity.cases import REFUSED, Scale
from scaleport.validation.parity.gates import evaluated, not_run, passed

_SHOWN: Final = 20
"""Failed cases that are listed without asking for more."""


@dataclass(frozen=True)
class Row:
    """What the cases of one backend, precision and mode came to.

    ``max_abs`` and ``psnr`` are the worst, None where nothing could be measured; the PSNR of equal
    images is infinite. ``where`` names shape and scale of the worst PSNR. ``remark`` belongs to the
    verdict: that a stand-in computed the graphs and not the backend itself.
    """

    backend: str
    precision: str
    """Of the graphs, and what they were computed in where that is another."""
    mode: str
    cases: int
    passed: int
    max_abs: float | None
    psnr: float | None
    where: str
    remark: str = ""

    @property
    def ok(self) -> bool:
        """Whether all cases passed."""
        return self.passed == self.cases


def summarise(parity: Parity) -> list[Row]:
    """One row per backend, precision and mode, in the order in which they were run."""
    groups: dict[tuple[str, str, str], list[ParityResult]] = {}
    for result in parity.results:
        groups.setdefault((result.backend, precision_of(result), result.mode), []).append(result)
    remarks = evaluated(parity)
    return [_row(key, results, remarks.get(key[0], "")) for key, results in groups.items()]


def precision_of(result: ParityResult) -> str:
    """Precision of the graphs, and what they were computed in where that is another."""
    return precision_text(result.precision, result.inference_precision)


def failures(parity: Parity) -> list[ParityResult]:
    """The cases that are outside their gate."""
    return [result for result in parity.results if not result.passed]


def describe(result: ParityResult) -> str:
    """One line that names a case and says how it ended."""
    height, width = result.shape
    measured = ""
    if result.max_abs is not None:
        measured = f"max abs {result.max_abs:.2e}, PSNR {_decibels(_psnr(result))} dB"
    ending = result.note if result.note or result.passed else "failed"
    return (
        f"{result.backend} {precision_of(result)} {result.mode} {result.shape_name} "
        f"{height}x{width} {scale_text(result.scale)}: {ending or measured}"
    )


def as_dict(parity: Parity) -> dict[str, Any]:
    """Everything as plain values that JSON can hold; an infinite PSNR is None beside max_abs 0."""
    rows = []
    for row in summarise(parity):
        psnr = row.psnr if row.psnr is not None and math.isfinite(row.psnr) else None
        rows.append({**asdict(row), "psnr": psnr, "ok": row.ok})
    return {
        "passed": passed(parity),
        "cases": len(parity.results),
        "failed": len(failures(parity)),
        "gates": parity.gates,
        "device": {n: d for n, d in parity.device.items() if n not in not_run(parity)},
        "not_run": not_run(parity),
        "evaluated": evaluated(parity),
        "refused_scales": [list(scale) for scale in _refused(parity)],
        "tool_versions": parity.tool_versions,
        "summary": rows,
        "failures": [msgspec.to_builtins(result) for result in failures(parity)],
    }


def render_table(parity: Parity, console: Console, every_case: bool = False) -> None:
    """Print a table of the results, then what was left out, then the cases that failed.

    Args:
        parity: the results.
        console: where to print; without a terminal behind it there are no colour codes.
        every_case: also list the cases that passed, and failures without limit.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("backend", "prec.", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("cases", "passed", "max abs", "PSNR dB"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("worst at", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in summarise(parity):
        table.add_row(
            row.backend,
            row.precision,
            row.mode,
            str(row.cases),
            str(row.passed),
            "-" if row.max_abs is None else f"{row.max_abs:.1e}",
            "-" if row.psnr is None else _decibels(row.psnr),
            row.where,
            _judged(row),
        )
    console.print(table)
    if every_case:
        _lines(console, (describe(r) for r in parity.results if r.passed))
    _lines(console, _remarks(parity))
    failed = failures(parity)
    shown = failed if every_case else failed[:_SHOWN]
    _lines(console, (f"failed: {describe(result)}" for result in shown), "red")
    if len(shown) < len(failed):
        _lines(console, [f"failed: and {len(failed) - len(shown)} more"], "red")
    _lines(console, [verdict(parity)], "green" if passed(parity) else "bold red")


def _judged(row: Row) -> Text:
    # The remark in full stands below: a line has room for a word.
    word = " (evaluated)" if row.remark else ""
    return Text(f"passed{word}", "green") if row.ok else Text(f"FAILED{word}", "bold red")


def verdict(parity: Parity) -> str:
    """The outcome in one line, with what limits it."""
    ran = {result.backend for result in parity.results}
    remarks = [f"; {name} {said}" for name, said in evaluated(parity).items() if name in ran]
    return _outcome(parity) + "".join(remarks)


def _outcome(parity: Parity) -> str:
    count, failed = len(parity.results), len(failures(parity))
    if failed:
        return f"{failed} of {count} cases outside the gates"
    if not passed(parity):
        return "nothing was compared"
    return f"all {count} cases within the gates"


def scale_text(scale: Scale) -> str:
    """``x2.7``, or ``x(2, 3.5)`` where the axes differ."""
    y, x = scale
    return f"x{y:.4g}" if y == x else f"x({y:.4g}, {x:.4g})"


def _remarks(parity: Parity) -> list[str]:
    skipped, stand_ins = not_run(parity), evaluated(parity)
    lines = []
    for precision, limits in parity.gates.items():
        words = {"max_abs": "max abs at most {:g}", "psnr": "PSNR at least {:g} dB"}
        said = ", ".join(words.get(n, n + " {:g}").format(v) for n, v in limits.items())
        lines.append(f"gate {precision}: {said or 'none'}")
    for name, device in parity.device.items():
        if name not in skipped:
            version = parity.tool_versions.get(name, "")
            how = "evaluated" if name in stand_ins else "ran"
            lines.append(f"{how} {name} {version} on {device}".replace("  ", " "))
    refused = ", ".join(scale_text(scale) for scale in _refused(parity))
    if refused:
        lines.append(f"outside the range of the model, correctly refused: {refused}")
    lines += [f"not run: {name}: {reason}" for name, reason in skipped.items()]
    return lines


def _refused(parity: Parity) -> list[Scale]:
    return list(dict.fromkeys(r.scale for r in parity.results if r.note == REFUSED and r.passed))


def _row(key: tuple[str, str, str], results: Sequence[ParityResult], remark: str) -> Row:
    measured = [result for result in results if result.max_abs is not None]
    worst = min(measured, key=_psnr, default=None)
    return Row(
        *key,
        cases=len(results),
        passed=sum(result.passed for result in results),
        max_abs=max((r.max_abs for r in results if r.max_abs is not None), default=None),
        psnr=None if worst is None else _psnr(worst),
        where="" if worst is None else f"{worst.shape_name} {scale_text(worst.scale)}",
        remark=remark,
    )


def _psnr(result: ParityResult) -> float:
    return math.inf if result.psnr is None else result.psnr


def _decibels(value: float) -> str:
    return f"{value:.1f}"


def _lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        # File names and messages of libraries may hold what looks like markup.
        console.print(Text(line, style), soft_wrap=True)
