"""``scaleport bench``: how fast a bundle is here, on every backend, beside PyTorch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.cli.completing import complete_model
from scaleport.cli.options import Backends, InferencePrecision, scale_of, size_of, words_of
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, table
from scaleport.errors import ScaleError, UsageError

if TYPE_CHECKING:
    from scaleport.benchmark.run import Benchmark, Row
    from scaleport.benchmark.timing import Spread

EXAMPLES = """\b
Examples:
  scaleport bench photo.bundle
  scaleport bench photo.bundle --size 96,256 --scale 2,4 --threads 2 --plot speed.png
  scaleport bench photo.bundle --backend openvino --precision fp32,int8 --pytorch none --json
"""


def bench(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE|NAME", autocompletion=complete_model, help="Bundles, or models by name."
        ),
    ],
    backends: Backends = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="LIST", help="[default: all in the bundle]"),
    ] = None,
    inference_precision: InferencePrecision = "",
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--size", metavar="LIST", help="LR sizes: 96 is 96x96, or WxH. [default: 96,256]"
        ),
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option("--scale", "-s", metavar="LIST", help="Scales. [default: 2,4]"),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Processor threads of every contender; 0 for all cores."
        ),
    ] = 0,
    turns: Annotated[
        int,
        typer.Option(
            "--rounds", min=1, metavar="N", help="Rounds; every contender runs once in each."
        ),
    ] = 5,
    pytorch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="PyTorch contenders: eager (the training form), compile (torch.compile), or none. "
            "[default: eager,compile]",
        ),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory", help="Measure peak memory, of each in a separate process."
        ),
    ] = True,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Measure time, throughput and peak memory per backend, precision, size and scale.

    Contenders take turns, round by round; ratios are medians over rounds, with their quartiles.
    Matrix products take turns with them, and the fastest is the ceiling that arithmetic is compared
    with. Other programs on the machine make every figure worse; the result includes the load.
    """
    from scaleport.benchmark.plot import check_plot
    from scaleport.benchmark.plot import plot as draw
    from scaleport.benchmark.run import BenchOptions
    from scaleport.benchmark.run import bench as measure

    out = Output(as_json, quiet, verbose)
    options = BenchOptions(
        backends=words_of(backends or []),
        precisions=words_of(precisions or []),
        inference_precision=inference_precision,
        pytorch=_pytorch(words_of(pytorch or ["eager,compile"])),
        sizes=tuple(_lr_size(word) for word in words_of(sizes or ["96,256"])),
        scales=tuple(_scale(word) for word in words_of(scales or ["2,4"])),
        threads=threads or os.cpu_count() or 1,
        rounds=turns,
        memory=memory,
    )
    if plot is not None:
        check_plot(plot)
    with out.progress() as progress, out.libraries():
        made = measure(bundles, options, progress)
    if plot is not None:
        draw(made.rows, plot, made.surroundings["machine"])
    out.result(made)
    _say(out, made)
    if plot is not None:
        out.say(f"{plot}")


def _lr_size(word: str) -> tuple[int, int]:
    return size_of(f"{word}x{word}" if re.fullmatch(r"[0-9]+", word, re.ASCII) else word)


def _scale(word: str) -> float:
    down, across = scale_of(word)
    if down != across:  # cannot happen: a comma separates the scales of the list
        raise ScaleError(f"one scale for both axes, not {word!r}")
    return down


def _pytorch(words: Sequence[str]) -> tuple[str, ...]:
    if "none" in words:
        if len(words) > 1:
            raise UsageError("--pytorch takes none, or what to measure, not both")
        return ()
    return tuple(words)


def _say(out: Output, made: Benchmark) -> None:
    around = made.surroundings
    versions = ", ".join(f"{name} {number}" for name, number in around["versions"].items())
    out.say(f"{around['machine']}, {around['threads']} threads; {versions}")
    load = around["load_before"]
    if load is not None and load > 0.5:
        out.say(f"other programs kept {load:.1f} processors busy when this began")
    for name, rate in made.ceiling.items():
        out.say(f"{name}: {rate:.1f} GMAC/s")
    heads = ("contender", "ms", "quartiles", "Mpx/s", "GMAC/s", "of ceiling", "x eager", "peak MiB")
    cases: dict[tuple[str, tuple[int, int], float], list[Row]] = {}
    for row in made.rows:
        cases.setdefault((row.bundle, row.size, row.scale), []).append(row)
    for (bundle, size, scale), rows in cases.items():
        out.say(f"{bundle}, {size[1]}x{size[0]}, x{scale:g}")
        for line in table([heads, *(_cells(row) for row in rows)], numbers=slice(1, None)):
            out.say(line)
    for name, reason in made.skipped.items():
        out.say(f"left out: {name}: {reason}")


def _cells(row: Row) -> tuple[str, ...]:
    from scaleport.runtimes.base import precision_text

    times = row.seconds
    return (
        f"{row.contender} {precision_text(row.precision, row.inference_precision)}",
        f"{times.median * 1e3:.1f}",
        f"{times.low * 1e3:.1f}-{times.high * 1e3:.1f}",
        f"{row.megapixels:.2f}",
        "-" if row.gmacs is None else f"{row.gmacs:.1f}",
        _median(row.of_ceiling, 100, "%"),
        _median(row.faster, 1, ""),
        "-" if row.peak_mib is None else f"{row.peak_mib:.0f}",
    )


def _median(spread: Spread | None, factor: float, unit: str) -> str:
    return "-" if spread is None else f"{spread.median * factor:.{0 if unit else 2}f}{unit}"
