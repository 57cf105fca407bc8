"""The ways of ``scaleport validate``, and what it prints about the results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scaleport.atomic import write_text
from scaleport.cli.options import decibels_of
from scaleport.cli.output import Output, table
from scaleport.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Parity
    from scaleport.bundle.reader import Bundle
    from scaleport.progress import Progress
    from scaleport.validation.parity.options import ValidationOptions

# Wide enough for every row; a file or a pipe has no width of its own.
_PIPE_WIDTH = 120
_KEPT = ("backend", "precision", "cases", "device")


def results_of(
    out: Output, bundle: Path, options: ValidationOptions, saved_in: Path | None, rejudge: bool
) -> tuple[Bundle, Parity]:
    """Results of saved outputs, of stored results or of a run."""
    if saved_in is not None:
        return _judge_saved(out, bundle, saved_in, options)
    if rejudge:
        return _rejudge(bundle, options)
    return _run(out, bundle, options)


def judge_int8(
    out: Output,
    bundle: Path,
    backends: tuple[str, ...] | None,
    data: Path | None,
    gate: str | None,
    threads: int,
) -> None:
    """Judge int8 by the PSNR that it loses."""
    if data is None:
        raise UsageError("int8 is judged alone, on ground truth: --precision int8 --data DIR")
    from scaleport.cli.contents import loss_table
    from scaleport.validation.loss import MAX_LOSS, measure_losses

    most = MAX_LOSS if gate is None else decibels_of(gate)
    with out.progress() as progress, out.libraries():
        losses = measure_losses(
            bundle,
            data,
            backends,
            threads=threads,
            progress=progress,
        )
    worst = max(loss.fp32 - loss.int8 for loss in losses)
    out.result({"images": data, "max_loss": most, "worst_loss": worst, "losses": losses})
    for line in loss_table(losses):
        out.say(line)
    # NaN is over any gate.
    if not worst <= most:
        raise GateFailed(f"int8 loses {worst:.3f} dB on {data}, allowed are {most:g} dB")
    out.say(f"int8 loses at most {worst:.3f} dB, allowed are {most:g} dB")


def _rejudge(bundle: Path, options: ValidationOptions) -> tuple[Bundle, Parity]:
    import msgspec

    from scaleport.bundle.reader import open_bundle
    from scaleport.bundle.writer import update_manifest
    from scaleport.validation.parity.gates import rejudge

    opened = open_bundle(bundle)
    manifest = opened.manifest
    if manifest.parity is None:
        raise UsageError(f"{bundle} holds no parity results yet; run it without --rejudge")
    parity = rejudge(manifest.parity, options.gates)
    if options.store:
        changed = msgspec.structs.replace(manifest, parity=parity)
        update_manifest(opened, changed, void_signature=True)
    return opened, parity


def _run(out: Output, bundle: Path, options: ValidationOptions) -> tuple[Bundle, Parity]:
    from scaleport.bundle.reader import open_bundle
    from scaleport.validation.parity.proof import validate

    opened = open_bundle(bundle)
    with out.progress() as progress, out.libraries():
        return opened, validate(opened, options, _counted(progress))


def _counted(progress: Progress) -> Progress:
    """The same, with the number of the case in words."""

    def tell(done: float, total: float | None, text: str, /) -> None:
        progress(done, total, f"{text}, {done:g} of {total:g}")

    return tell


def save(out: Output, bundle: Path, folder: Path, options: ValidationOptions) -> None:
    """Run the graphs and save their outputs."""
    from scaleport.runtimes.base import precision_text
    from scaleport.validation.exchange.saving import save_outputs

    with out.progress() as progress, out.libraries():
        index = save_outputs(bundle, folder, options, _counted(progress))
    runs = [
        (
            run.backend,
            precision_text(run.precision, run.inference_precision),
            str(len(run.cases)),
            run.device,
        )
        for run in index.runs
    ]
    failed = [case for run in index.runs for case in run.cases if case.file is None]
    out.result(
        {
            "folder": folder,
            "model": index.model,
            "runs": [dict(zip(_KEPT, run, strict=True)) for run in runs],
            "failed": [case.note for case in failed],
            "left_out": index.left_out,
        }
    )
    for line in table([_KEPT, *runs]):
        out.say(line)
    if failed:
        out.say(f"{len(failed)} cases have no output; first: {failed[0].note}")
    for name, reason in index.left_out.items():
        out.say(f"{name}: {reason}")
    out.say(f"kept in {folder}; judge them with --load-outputs where PyTorch is installed")


def _judge_saved(
    out: Output, bundle: Path, folder: Path, options: ValidationOptions
) -> tuple[Bundle, Parity]:
    from scaleport.bundle.reader import open_bundle
    from scaleport.validation.exchange.judging import judge_outputs

    opened = open_bundle(bundle)
    with out.progress() as progress, out.libraries():
        return opened, judge_outputs(opened, folder, options, _counted(progress))


def write_page(
    out: Output, bundle: Bundle, parity: Parity, target: Path, threads: int, pictures: bool
) -> None:
    """Write the report as a page."""
    from scaleport.validation.report.page import render_page

    evidence = None
    if pictures:
        from scaleport.validation.report.evidence import gather

        with out.progress() as progress, out.libraries():
            evidence = gather(bundle, parity, threads, progress)
    write_text(target, render_page(bundle.manifest, parity, evidence))
    out.say(f"wrote {target}")


def report(out: Output, parity: Parity) -> None:
    """Print the verdict; raises GateFailed if a case is outside its gate."""
    from rich.console import Console

    from scaleport.validation.parity.gates import passed
    from scaleport.validation.report.summary import (
        as_dict,
        describe,
        failures,
        render_table,
        verdict,
    )

    out.result(as_dict(parity))
    if not out.json and not out.quiet:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        render_table(parity, Console(file=sys.stdout, width=width), every_case=out.verbose)
    if not passed(parity):
        first = next((f"; first: {describe(result)}" for result in failures(parity)), "")
        raise GateFailed(verdict(parity) + first)
