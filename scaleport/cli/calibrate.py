"""``scaleport calibrate``: a bundle with int8 graphs within a quality budget."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.atomic import write_text
from scaleport.cli.options import (
    BundleOutput,
    Checkpoint,
    Height,
    License,
    OverwriteBundle,
    Static,
    StaticScale,
    Threads,
    Width,
    bundle_target,
    decibels_of,
    formats_of,
    sizes_of,
    static_of,
    words_of,
)
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, table
from scaleport.extras import needs
from scaleport.runtimes.registry import int8_judges
from scaleport.shipped import checkpoint_name, find_checkpoint

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Quantisation

EXAMPLES = """\b
Examples:
  scaleport calibrate scaleport-s --data PHOTOS --max-loss 0.1dB
  scaleport calibrate my.safetensors --data PHOTOS -o my.bundle --format onnx --plot loss.png
"""


def calibrate(
    checkpoint: Checkpoint,
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="Folder of images like those you will upscale."),
    ],
    max_loss: Annotated[
        str,
        typer.Option(
            "--max-loss",
            metavar="DB",
            help="Largest loss of PSNR on held-out images, such as 0.1dB.",
        ),
    ] = "0.1dB",
    output: BundleOutput = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="onnx, openvino, tensorrt, coreml; onnx is always written. "
            "[default: onnx,openvino]",
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="LIST", help="Also write fp32, fp16. [default: both]"),
    ] = None,
    ranges: Annotated[
        str,
        typer.Option(metavar="METHOD", help="Ranges: minmax, percentile, entropy or mse."),
    ] = "minmax",
    patches: Annotated[int, typer.Option(metavar="N", min=1, help="Calibration patches.")] = 48,
    held_out: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            help="Images that are kept for judging, at most half of them. "
            "[default: 8, or half of fewer than 16]",
        ),
    ] = None,
    least: Annotated[
        float,
        typer.Option(
            "--least-int8", metavar="X", help="Smallest fraction of layers that must be int8."
        ),
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the sampling.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw loss against the fraction in int8."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures as JSON.")
    ] = None,
    height: Height = None,
    width: Width = None,
    static: Static = None,
    scale: StaticScale = None,
    threads: Threads = 0,
    license: License = "",
    overwrite: OverwriteBundle = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Export a checkpoint with int8 graphs that lose no more than the budget.

    Layers are ranked by the loss that each causes alone. The worst stay float until the loss on
    held-out images is within the budget, on every backend that can run here. If no plan meets the
    budget, the exit code is 1 and nothing is written.
    """
    out = Output(as_json, quiet, verbose)
    source = find_checkpoint(checkpoint)
    target = bundle_target(output, source, overwrite)
    chosen = formats_of(formats) if formats else tuple(b.graph_format for b in int8_judges())
    others = words_of(precisions) if precisions is not None else ("fp32", "fp16")
    budget = decibels_of(max_loss)
    with needs("export", "calibration"):
        from scaleport.calibration.images import Sampling
        from scaleport.calibration.quantiser import CalibrationOptions, OverBudget
        from scaleport.calibration.run import calibrate as quantise
        from scaleport.export.plan import ExportOptions

    export = ExportOptions(
        formats=chosen,
        precisions=others,  # type: ignore[arg-type]
        overwrite=overwrite,
        license=license,
        **sizes_of(height, width),
        **static_of(static, scale, bool(height or width)),
    )
    options = CalibrationOptions(
        max_loss=budget,
        ranges=ranges,  # type: ignore[arg-type]
        least=least,
        sampling=Sampling(patches=patches, held_out=held_out, seed=seed),
        threads=threads,
    )
    start = time.perf_counter()
    with out.progress() as progress, out.libraries():
        try:
            made = quantise(source, data, target, options, export, progress)
            record, failure = made.manifest.quantisation, None
        except OverBudget as error:
            record, failure = error.record, error
    assert record is not None
    _write(record, report, plot, checkpoint_name(source))
    seconds = round(time.perf_counter() - start, 3)
    _report(out, record, source, None if failure else target, seconds)
    if failure is not None:
        raise failure


def _write(record: Quantisation, report: Path | None, picture: Path | None, name: str) -> None:
    from scaleport.calibration.report import as_dict, plot

    if report is not None:
        write_text(report, json.dumps(as_dict(record), indent=1) + "\n")
    if picture is not None:
        plot(record, picture, name)


def _report(
    out: Output, record: Quantisation, source: Path, target: Path | None, seconds: float
) -> None:
    from scaleport.calibration.report import as_dict
    from scaleport.cli.contents import loss_table

    plain = as_dict(record)
    out.result({"checkpoint": source, "bundle": target, "seconds": seconds, **plain})
    out.say(
        f"{plain['int8_layers']} of {len(record.layers)} layers in int8, worst loss "
        f"{plain['worst_loss']:.3f} dB, allowed {record.max_loss:g} dB"
    )
    for line in loss_table(record.losses):
        out.say(line)
    kept = [layer for layer in record.layers if layer.precision == "fp32"]
    if kept:
        out.say("kept in float:")
    lines = [
        (
            layer.stage,
            layer.layer,
            "-" if layer.effect is None else f"{layer.effect:.4f} dB",
            layer.reason,
        )
        for layer in kept
    ]
    for line in table(lines):
        out.say(line)
    if target is not None:
        out.say(f"wrote {target} in {seconds:.0f} s")
        out.say(f"next: scaleport upscale IMAGE -m {target} -s 2 --precision int8")
