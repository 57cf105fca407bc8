"""``scaleport eval``: scores on benchmark images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaleport.cli.options import Device, Threads, words_of
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.errors import UsageError

if TYPE_CHECKING:
    from scaleport.evaluation.metrics import Metric
    from scaleport.evaluation.run import Evaluation, Score

EXAMPLES = """\b
Examples:
  scaleport eval scaleport-s --data BENCH --scale 2 2.7 3 4
  scaleport eval photo.bundle --data BENCH --set Set5 --backend openvino --precision fp16
  scaleport eval photo.bundle --data BENCH --degrade noise:5,jpeg:75
  scaleport eval own.safetensors --data DIV2K_valid --protocol liif-div2k-rgb --csv scores.csv
"""

_SCALES = ("2", "3", "4")
_METRICS = ("psnr", "ssim")


def evaluate(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE|NAME",
            help="A checkpoint, a bundle or a shipped checkpoint. Numbers beside it are scales.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of ground-truth images, or of such folders."),
    ],
    scales: Annotated[
        list[str] | None,
        typer.Option(
            "--scale",
            "-s",
            metavar="LIST",
            help="Scales: 2 2.7 4, comma-separated or repeated. [default: 2 3 4]",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How to score: basicsr-y, liif-benchmark-y, liif-div2k-rgb."
        ),
    ] = "basicsr-y",
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="LIST", help="psnr, ssim, lpips. [default: psnr,ssim]"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LIST", help="Only these folders of DIR. [default: all]"),
    ] = None,
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Degradations of LR, in this order: jpeg:75, webp:75, noise:10, "
            "poisson:10, blur:1.",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Only every Nth image of a set.")
    ] = 1,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Backend that runs a bundle. [default: auto]")
    ] = "",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="Graphs of a bundle: fp32, fp16. [default: first]")
    ] = "",
    device: Device = "",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the scores there too.")
    ] = None,
    threads: Threads = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Score a network on benchmark images, with bicubic beside it.

    LR is made from the ground truth as the protocol defines; --degrade degrades it. Scales beyond
    the network's range have a bicubic row only.
    """
    out = Output(as_json, quiet, verbose)
    model, numbers = _sort(given, scales or [])
    from scaleport.evaluation.run import EvaluationOptions, write_csv
    from scaleport.evaluation.run import evaluate as score

    options = EvaluationOptions(
        scales=tuple(numbers),
        protocol=protocol,
        metrics=words_of(metrics) if metrics else _METRICS,
        sets=words_of(sets) if sets else (),
        degrade=words_of(degrade) if degrade else (),
        every=every,
        backend=backend,
        precision=precision,
        device=device,
        threads=threads,
    )
    with out.progress() as progress, out.libraries():
        found = score(model, data, options, progress)
    if csv is not None:
        write_csv(csv, found.scores, found.metrics)
    _say(out, model, found, numbers)


def _say(out: Output, model: str, found: Evaluation, scales: Sequence[float]) -> None:
    subject = found.subject
    low, high = subject.scales
    beyond = [f"x{number:g}" for number in scales if not low <= number <= high]
    if beyond:
        out.note(
            f"{', '.join(beyond)}: bicubic only, {subject.name} goes from x{low:g} to x{high:g}"
        )
    out.result(
        {
            "model": model,
            "backend": subject.backend,
            "precision": subject.precision,
            "device": subject.device,
            "protocol": found.protocol.name,
            "degrade": found.degradation,
            "scores": [_plain(row) for row in found.scores],
        }
    )
    after = "".join(f", {word}" for word in found.degradation)
    out.say(
        f"{subject.name} on {subject.backend} {subject.precision}, protocol "
        f"{found.protocol.name}{after}"
    )
    out.say_table(_rows(found.scores, found.metrics, subject.name), numbers=slice(4, None))


def _sort(given: Sequence[str], scales: Sequence[str]) -> tuple[str, list[float]]:
    """The model, and all scales: ``--scale 2 3 4`` leaves 3 and 4 among the arguments."""
    words = [word for word in given if not _is_number(word)]
    if len(words) != 1:
        raise UsageError(f"eval scores one checkpoint or bundle at a time, got {words or 'none'}")
    texts = words_of([*scales, *(word for word in given if _is_number(word))]) or _SCALES
    wrong = [text for text in texts if not _is_number(text) or not 1 <= float(text) <= 1000]
    if wrong:
        raise UsageError(f"a scale to score at is a number from 1, got {wrong[0]!r}")
    return words[0], sorted({float(text) for text in texts})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not Path(text).exists()


def _plain(row: Score) -> dict[str, Any]:
    return {
        "set": row.images,
        "images": row.count,
        "scale": row.scale,
        "method": row.subject,
        # An infinite PSNR, of equal images, is no JSON number.
        **{name: value if abs(value) < 1e9 else None for name, value in row.values.items()},
    }


def _rows(scores: Sequence[Score], metrics: Sequence[Metric], name: str) -> list[list[str]]:
    head = [f"{m.name.upper()} {m.unit}".strip() for m in metrics]
    rows = [["set", "images", "scale", "method", *head, "gain"]]
    base: dict[tuple[str, float], float] = {}
    first = metrics[0]
    for row in scores:
        key = (row.images, row.scale)
        gain = ""
        if row.subject == name and key in base:
            gain = f"{row.values[first.name] - base[key]:+.{first.digits}f}"
        else:
            base[key] = row.values[first.name]
        numbers = [f"{row.values[m.name]:.{m.digits}f}" for m in metrics]
        rows.append([row.images, str(row.count), f"x{row.scale:g}", row.subject, *numbers, gain])
    return rows
