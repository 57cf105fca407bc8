"""``scaleport validate``: the parity proof of a bundle."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.atomic import write_text
from scaleport.cli.completing import complete_model
from scaleport.cli.options import Backends, InferencePrecision, Threads
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, table
from scaleport.cli.parse import decibels_of, words_of
from scaleport.errors import GateFailed, UsageError
from scaleport.ready import find_bundle, of_package

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Parity
    from scaleport.bundle.reader import Bundle
    from scaleport.progress import Progress
    from scaleport.validation.parity.gates import Gates
    from scaleport.validation.parity.options import ValidationOptions

EXAMPLES = """\b
Examples:
  scaleport validate photo.bundle
  scaleport validate photo.bundle --quick --backend openvino --precision fp16
  scaleport validate photo.bundle --report report.html
  scaleport validate photo.bundle --precision int8 --data Set5 --gate-int8-loss 0.1dB
  scaleport validate photo.bundle --save-outputs mac
  scaleport validate photo.bundle --load-outputs mac
  scaleport validate photo.bundle --rejudge --gate-fp16-psnr 60 --no-store
"""

# Wide enough for every row; a file or a pipe has no width of its own.
_PIPE_WIDTH = 120
_KEPT = ("backend", "precision", "cases", "device")


def validate(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|NAME",
            autocompletion=complete_model,
            help="The bundle to compare, or a model by name.",
        ),
    ],
    backends: Backends = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            metavar="LIST",
            help="fp32, fp16, or int8 alone, which needs --data. [default: fp32,fp16]",
        ),
    ] = None,
    inference_precision: InferencePrecision = "",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Ground-truth images, on which int8 may lose PSNR up to its gate."
        ),
    ] = None,
    int8_loss: Annotated[
        str | None,
        typer.Option("--gate-int8-loss", metavar="DB", help="Most PSNR lost. [default: 0.1dB]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Every scale and shape once, not all combinations.")
    ] = False,
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="Run nothing; judge the stored results again.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Also write a page with pictures, in one HTML file."
        ),
    ] = None,
    saved_to: Annotated[
        Path | None,
        typer.Option(
            "--save-outputs",
            metavar="DIR",
            help="Only run the graphs; save the outputs, for a machine that has PyTorch.",
        ),
    ] = None,
    saved_in: Annotated[
        Path | None,
        typer.Option("--load-outputs", metavar="DIR", help="Run nothing; judge saved outputs."),
    ] = None,
    store: Annotated[
        bool | None,
        typer.Option(
            "--store/--no-store",
            show_default=False,
            help="Store the results in the manifest, which voids a signature. "
            "[default: unless the bundle is signed]",
        ),
    ] = None,
    fp32_max_abs: Annotated[
        float | None,
        typer.Option(
            "--gate-fp32-max-abs", metavar="X", help="Largest difference. [default: 1e-4]"
        ),
    ] = None,
    fp32_psnr: Annotated[
        float | None,
        typer.Option("--gate-fp32-psnr", metavar="DB", help="Least PSNR. [default: 80]"),
    ] = None,
    fp16_max_abs: Annotated[
        float | None,
        typer.Option("--gate-fp16-max-abs", metavar="X", help="Largest difference. [default: any]"),
    ] = None,
    fp16_psnr: Annotated[
        float | None,
        typer.Option("--gate-fp16-psnr", metavar="DB", help="Least PSNR. [default: 55]"),
    ] = None,
    tf32_psnr: Annotated[
        float | None,
        typer.Option(
            "--gate-tf32-psnr",
            metavar="DB",
            help="Least PSNR with --inference-precision tf32. [default: 60]",
        ),
    ] = None,
    bf16_psnr: Annotated[
        float | None,
        typer.Option(
            "--gate-bf16-psnr",
            metavar="DB",
            help="Least PSNR with --inference-precision bf16. [default: 40]",
        ),
    ] = None,
    threads: Threads = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Compare a bundle's graphs with the PyTorch network, over many image shapes and scales.

    The results are stored in the bundle's manifest, unless the bundle is signed: another manifest
    would void its signature. A backend that cannot run here is listed as not run. The exit code is
    1 if a case is outside its gate.
    """
    out = Output(as_json, quiet, verbose)
    asked = words_of(precisions) if precisions else ()
    if "int8" in asked or data is not None or int8_loss is not None:
        others = (quick, rejudge, page, saved_to, saved_in, inference_precision)
        if asked not in ((), ("int8",)) or data is None or any(others):
            raise UsageError("int8 is judged alone, on ground truth: --precision int8 --data DIR")
        _judge_int8(out, bundle, words_of(backends) if backends else None, data, int8_loss, threads)
        return
    _check_modes(
        saved_to is not None,
        saved_in is not None,
        rejudge,
        page is not None,
        bool(backends or precisions or inference_precision or quick),
    )
    from scaleport.validation.parity.options import ValidationOptions

    options = ValidationOptions(
        backends=words_of(backends) if backends else None,
        precisions=asked or None,
        selection="quick" if quick else "full",
        gates=_gates(fp32_max_abs, fp32_psnr, fp16_max_abs, fp16_psnr, tf32_psnr, bf16_psnr),
        threads=threads,
        inference_precision=inference_precision,
    )
    if page is not None:
        from scaleport.validation.report.page import check_place

        check_place(page)
    if saved_to is not None:
        _save(out, bundle, saved_to, options)
        return
    bundle = find_bundle(bundle)
    options = replace(options, store=_keeps(out, bundle, store))
    if saved_in is not None:
        opened, parity = _judge_saved(out, bundle, saved_in, options)
    elif rejudge:
        opened, parity = _rejudge(bundle, options)
    else:
        opened, parity = _run(out, bundle, options)
    if page is not None:
        _page(out, opened, parity, page, threads, pictures=not rejudge and not saved_in)
    _report(out, parity)


def _check_modes(saves: bool, loads: bool, rejudges: bool, page: bool, chooses: bool) -> None:
    """Refuse options that contradict each other.

    Args:
        saves: whether outputs are kept and not judged.
        loads: whether outputs that were kept are judged.
        rejudges: whether stored results are judged again.
        page: whether a page is written.
        chooses: whether it was said which cases to run.
    """
    if saves and (loads or rejudges or page):
        raise UsageError(
            "--save-outputs only runs the graphs; leave out --load-outputs, --rejudge and --report"
        )
    if loads and (chooses or rejudges):
        raise UsageError("--load-outputs judges every saved output; combine it with gates only")
    if rejudges and chooses:
        raise UsageError("--rejudge judges every stored result; combine it with gates only")


def _keeps(out: Output, bundle: Path, store: bool | None) -> bool:
    """Whether the results go into the manifest; says what that means for a signature."""
    from scaleport.bundle.writer import is_signed

    if of_package(bundle):
        if store:
            raise UsageError(f"{bundle} belongs to the package and is not changed; copy it first")
        return False
    if not is_signed(bundle):
        return store is not False
    if store is None:
        out.note(
            f"{bundle} is signed: the results are not stored, since the signature covers the "
            "manifest; --store stores them and removes the signature"
        )
    elif store:
        out.note(
            f"storing the results removes the signature of {bundle}; sign it again with "
            f"scaleport sign {bundle}"
        )
    return bool(store)


def _judge_int8(
    out: Output,
    bundle: Path,
    backends: tuple[str, ...] | None,
    data: Path,
    gate: str | None,
    threads: int,
) -> None:
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


def _gates(
    fp32_max_abs: float | None,
    fp32_psnr: float | None,
    fp16_max_abs: float | None,
    fp16_psnr: float | None,
    tf32_psnr: float | None,
    bf16_psnr: float | None,
) -> Gates:
    from scaleport.validation.parity.gates import Gate, Gates

    usual = Gates()

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    return Gates(
        tf32=Gate(psnr=given(tf32_psnr, usual.tf32.psnr)),
        bf16=Gate(psnr=given(bf16_psnr, usual.bf16.psnr)),
        fp32=Gate(given(fp32_max_abs, usual.fp32.max_abs), given(fp32_psnr, usual.fp32.psnr)),
        fp16=Gate(given(fp16_max_abs, usual.fp16.max_abs), given(fp16_psnr, usual.fp16.psnr)),
    )


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


def _save(out: Output, bundle: Path, folder: Path, options: ValidationOptions) -> None:
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


def _page(
    out: Output, bundle: Bundle, parity: Parity, target: Path, threads: int, pictures: bool
) -> None:
    from scaleport.validation.report.page import render_page

    evidence = None
    if pictures:
        from scaleport.validation.report.evidence import gather

        with out.progress() as progress, out.libraries():
            evidence = gather(bundle, parity, threads, progress)
    write_text(target, render_page(bundle.manifest, parity, evidence))
    out.say(f"wrote {target}")


def _report(out: Output, parity: Parity) -> None:
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
