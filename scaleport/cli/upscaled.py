"""Where the results of ``scaleport upscale`` go: images to pipes (``-``), lines to people."""

from __future__ import annotations

import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scaleport.cli.output import Output, error_line, put
from scaleport.errors import ScaleportError, UsageError

if TYPE_CHECKING:
    from scaleport.batch.run import Report
    from scaleport.batch.work import Outcome
    from scaleport.runtimes.upscaler import Upscaler
_STDIN: Final = ("-", "/dev/stdin")
_STDOUT: Final = ("-", "/dev/stdout")


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


class Streams:
    """Inputs and the output of a command, with files in place of ``-``.

    Args:
        inputs: as given; ``-`` alone is the standard input.
        output: as given; ``-`` is the standard output, and so is None where the input is one.
        suffix: of the format that is written to the standard output, without a dot; PNG if empty.

    Raises:
        UsageError: if ``-`` is one of several inputs, or an image would come from or go to a
            terminal.
    """

    def __init__(self, inputs: Sequence[str], output: str | None, suffix: str) -> None:
        self.inputs, self.output = list(inputs), output
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._result: Path | None = None
        if any(path in _STDIN for path in inputs):
            if len(inputs) > 1:
                raise UsageError(
                    "- reads one image from the standard input; leave out other inputs"
                )
            self.output = output or "-"
            self.inputs = [str(self._read_from())]
        if self.output in _STDOUT:
            if sys.stdout.isatty():
                raise UsageError("an image is not written to a terminal; add -o FILE or a pipe")
            self._result = self._scratch() / f"stdout.{suffix.lower().removeprefix('.') or 'png'}"
            self.output = str(self._result)

    @property
    def to_stdout(self) -> bool:
        """Whether the image goes to the standard output."""
        return self._result is not None

    def reporter(self, as_json: bool, quiet: bool, verbose: bool) -> Output:
        """Where the command's lines go: away from an image on the standard output.

        Raises:
            UsageError: if both the image and JSON would be written there.
        """
        if self.to_stdout and as_json:
            raise UsageError("--json needs the standard output; name a file with -o")
        return (BesideImage if self.to_stdout else Output)(as_json, quiet, verbose)

    def send(self) -> None:
        """Write the result to the standard output if it goes there and was made."""
        if self._result is not None and self._result.is_file():
            with self._result.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    def _read_from(self) -> Path:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("there is no image on the standard input; name a file or use a pipe")
        stdin = Path(_STDIN[1])
        if stdin.exists():
            return stdin
        copy = self._scratch() / "stdin"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return copy

    def _scratch(self) -> Path:
        if self._folder is None:
            # Removed with this object, or when the program ends.
            self._folder = tempfile.TemporaryDirectory(prefix="scaleport-")
        return Path(self._folder.name)


class BesideImage(Output):
    """Lines for people go to stderr, because stdout holds an image."""

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.quiet:
            put(text, err=True)
