"""What ``scaleport upscale`` prints about its outputs."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaleport.cli.output import Output, error_line, put
from scaleport.errors import ScaleportError

if TYPE_CHECKING:
    from scaleport.batch.run import Report
    from scaleport.batch.work import Outcome
    from scaleport.runtimes.upscaler import Upscaler


def report_run(
    out: Output, bundle: Path, upscaler: Upscaler, report: Report, seconds: float
) -> None:
    """The summary, and the result as JSON."""
    from scaleport.runtimes.base import precision_text

    unplanned = len(report.failures) - sum(o.error is not None for o in report.outcomes)
    device = upscaler.device if report.made else ""
    if device:
        words = precision_text(upscaler.precision, upscaler.inference_precision)
        out.say(f"{upscaler.manifest.name} with {upscaler.backend} on {device}, {words}")
    if len(report.outcomes) + unplanned > 1:
        for line in _summary(report, seconds):
            out.say(line)
    out.result(
        {
            "bundle": bundle,
            "model": upscaler.manifest.name,
            "backend": upscaler.backend,
            "device": device or None,
            "precision": upscaler.precision,
            "inference_precision": upscaler.inference_precision,
            "images": [_described(o) for o in report.outcomes if o.error is None],
            "failures": [
                {"input": path, "error": str(error), "exit_code": error.exit_code}
                for path, error in report.failures
            ],
            "left_out": [{"file": path, "reason": why} for path, why in report.left_out],
            "summary": {
                "made": report.made,
                "kept": report.kept,
                "failed": len(report.failures),
                "seconds": round(seconds, 3),
            },
        }
    )


def say_outcome(out: Output, outcome: Outcome) -> None:
    """What became of one file."""
    if outcome.error is not None:
        complain(outcome.error, out.verbose)
        return
    assert outcome.result is not None
    for note in outcome.result.notes:
        out.note(f"{outcome.job.source}: {note}")
    out.say(_line(outcome))


def left_out_lines(files: Sequence[tuple[Path, str]]) -> list[str]:
    """One line per reason: the file, or the first of several and their number."""
    by_reason: dict[str, list[Path]] = {}
    for path, reason in files:
        by_reason.setdefault(reason, []).append(path)
    return [
        f"left out {paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {reason}"
        for reason, paths in by_reason.items()
    ]


def _described(outcome: Outcome) -> dict[str, Any]:
    assert outcome.result is not None
    return {
        "input": outcome.job.source,
        "output": outcome.job.target,
        "input_size": _sides(outcome.result.input_size),
        "output_size": _sides(outcome.result.output_size),
        "notes": outcome.result.notes,
        "tile": None if outcome.kept else outcome.result.tile,
        "kept": outcome.kept,
        "seconds": round(outcome.seconds, 3),
    }


def _sides(shape: tuple[int, int]) -> dict[str, int]:
    return {"width": shape[1], "height": shape[0]}


def _line(outcome: Outcome) -> str:
    assert outcome.result is not None
    sizes = [f"{w}x{h}" for h, w in (outcome.result.input_size, outcome.result.output_size)]
    how = "kept" if outcome.kept else f"in {outcome.seconds:.2f} s"
    return f"{outcome.job.target}: {sizes[0]} -> {sizes[1]} {how}"


def _summary(report: Report, seconds: float) -> list[str]:
    counts = [f"{report.made} made"]
    counts += [f"{report.kept} kept"] if report.kept else []
    counts += [f"{len(report.failures)} failed"] if report.failures else []
    lines = [f"{', '.join(counts)} in {seconds:.1f} s"]
    return lines + [f"  {' '.join(str(error).splitlines())}" for _, error in report.failures]


def complain(error: ScaleportError, verbose: bool) -> None:
    """An error of one file, on stderr."""
    if verbose and error.__cause__ is not None and error.exit_code == ScaleportError.exit_code:
        traceback.print_exception(error)
    put(error_line(str(error)), err=True)
