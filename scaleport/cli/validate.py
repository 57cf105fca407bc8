"""``scaleport validate``: the parity proof of a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.cli.completing import complete_model
from scaleport.cli.options import Backends, InferencePrecision, Threads, words_of
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.cli.validated import judge_int8, report, results_of, save, write_page
from scaleport.errors import UsageError
from scaleport.ready import find_bundle, of_package

if TYPE_CHECKING:
    from scaleport.validation.parity.gates import Gates

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
    chosen = words_of(backends) if backends else None
    if "int8" in asked or data is not None or int8_loss is not None:
        others = (quick, rejudge, page, saved_to, saved_in, inference_precision)
        alone = asked in ((), ("int8",)) and not any(others)
        judge_int8(out, bundle, chosen, data if alone else None, int8_loss, threads)
        return
    _check_modes(
        saved_to is not None,
        saved_in is not None,
        rejudge,
        page is not None,
        any((backends, precisions, inference_precision, quick)),
    )
    from scaleport.validation.parity.options import ValidationOptions

    options = ValidationOptions(
        backends=chosen,
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
        save(out, bundle, saved_to, options)
        return
    bundle = find_bundle(bundle)
    options = replace(options, store=_keeps(out, bundle, store))
    opened, parity = results_of(out, bundle, options, saved_in, rejudge)
    if page is not None:
        write_page(out, opened, parity, page, threads, pictures=not rejudge and not saved_in)
    report(out, parity)


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
