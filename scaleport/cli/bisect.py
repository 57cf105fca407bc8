"""``scaleport bisect``: the first layer in which a graph leaves the PyTorch network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.cli.completing import complete_model
from scaleport.cli.options import scale_of, size_of, words_of
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, table
from scaleport.errors import GateFailed
from scaleport.extras import needs

if TYPE_CHECKING:
    from scaleport.validation.bisection.divergence import Compared, Statistics
    from scaleport.validation.bisection.options import Bisection

EXAMPLES = """\b
Examples:
  scaleport bisect photo.bundle
  scaleport bisect photo.bundle --backend openvino --precision fp16
  scaleport bisect photo.bundle --stage render --scale 3 --checkpoint liif.safetensors --json
"""


def bisect(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|NAME",
            autocompletion=complete_model,
            help="The bundle to search, or a model by name.",
        ),
    ],
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, tensorrt, coreml or one of another package. "
            "[default: the first of them that can run here]",
            show_default=False,
        ),
    ] = "",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="fp32 or fp16; both are compared with float32.")
    ] = "fp32",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Reference checkpoint. [default: the bundle's]"),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="LIST", help="Only these, e.g. encode. [default: all]"),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", "-s", metavar="S", help="One scale, or S_Y,S_X. [default: 2.7]"),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the made-up image that is fed.")
    ] = "21x15",
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest difference of a tensor, as a share of its largest value or of 1. "
            "[default: 1e-4 for fp32, 2e-2 for fp16]",
        ),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Run a bundle's graphs and PyTorch side by side and name the first layer that differs.

    Every tensor of a graph is compared with the one of the same name in PyTorch, in the order of
    computation. Core ML programs are evaluated operation by operation on every system; TensorRT
    needs a GPU and builds its engine again, with every tensor as an output. The exit code is 1 if
    a divergence is found.
    """
    out = Output(as_json, quiet, verbose)
    with needs("export", "bisect"):
        from scaleport.validation.bisection.bisect import bisect as search
        from scaleport.validation.bisection.options import BisectOptions
    options = BisectOptions(
        backend=backend,
        precision=precision,
        shape=size_of(size),
        scale=None if scale is None else scale_of(scale),
        tolerance=tolerance,
        stages=words_of(stages) if stages else (),
        checkpoint=checkpoint,
    )
    with out.progress() as progress, out.libraries():
        found = search(bundle, options, progress)
    out.result(found)
    for note in found.notes:
        out.note(note)
    _print(out, found)
    if found.divergence is not None:
        raise GateFailed(
            f"{found.backend} {precision} differs from PyTorch first in {found.divergence.place}, "
            f"tensor {found.divergence.tensor!r}: {found.divergence.reason}"
        )


def _print(out: Output, found: Bisection) -> None:
    height, width = found.shape
    out.say(
        f"{found.backend} {found.precision} on {found.device}, image {width}x{height}, "
        f"tolerance {found.tolerance:g}"
    )
    headings = ("stage", "tensors", "compared", "modules", "worst/limit", "verdict")
    for line in table([headings, *(_row(compared) for compared in found.compared)]):
        out.say(line)
    first = found.divergence
    if first is None:
        out.say("no tensor is outside the tolerance")
        return
    out.say()
    out.say(f"first divergence: {first.place}")
    rows = [("tensor", first.tensor), ("operation", first.operation), ("why", first.reason)]
    if first.reference_operation:
        rows.insert(2, ("PyTorch", first.reference_operation))
    for line in table([*rows, *_numbers(first.statistics)]):
        out.say(line)


def _row(compared: Compared) -> tuple[str, ...]:
    verdict = "differs" if compared.divergence is not None else "ok"
    counts = (str(compared.tensors), str(compared.matched), str(compared.modules))
    return (compared.stage, *counts, f"{compared.worst:.2g}", verdict)


def _numbers(found: Statistics) -> list[tuple[str, str]]:
    rows = [("shape", "x".join(map(str, found.shape)) or "scalar")]
    if found.shape != found.expected_shape:
        rows.append(("expected", "x".join(map(str, found.expected_shape)) or "scalar"))
    for name, value, unit in (
        ("max abs", found.max_abs, ""),
        ("mean abs", found.mean_abs, ""),
        ("PSNR", found.psnr, " dB to the largest value"),
    ):
        if value is not None:
            rows.append((name, f"{value:.4g}{unit}"))
    if found.not_finite:
        rows.append(("not finite", str(found.not_finite)))
    if found.worst is not None:
        index = ", ".join(map(str, found.worst))
        rows.append(
            ("worst at", f"[{index}]: {found.found_there}, {found.expected_there} is expected")
        )
    for name, limits in (("range", found.found_range), ("expected", found.expected_range)):
        if limits is not None:
            rows.append((name, f"{limits[0]:.6g} to {limits[1]:.6g}"))
    return rows
