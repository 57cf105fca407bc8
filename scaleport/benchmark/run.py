"""Benchmarks of bundles: every contender on every size and scale, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from scaleport.benchmark.ceiling import MACS, products
from scaleport.benchmark.contenders import (
    EAGER,
    PYTORCH,
    Contender,
    missing_for,
    noise,
    of_backend,
    of_pytorch,
)
from scaleport.benchmark.memory import peak_of
from scaleport.benchmark.timing import Seconds, Spread, ratios, rounds, surroundings
from scaleport.benchmark.work import deploy_work, macs
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import BackendError, ScaleportError, UsageError
from scaleport.grid import Grid
from scaleport.progress import Progress, part, silent
from scaleport.runtimes.base import stored_format
from scaleport.runtimes.registry import get_backend, ranked_names, refusal_of
from scaleport.runtimes.scales import checked_grid

Peak = tuple[float | None, float | None]


@dataclass(frozen=True)
class BenchOptions:
    """What is measured.

    Attributes:
        backends: names; empty for all that can run here, except emulated ones.
        precisions: names; empty for all that the bundle has.
        inference_precision: precision of the arithmetic; empty for that of the graphs.
            The PyTorch contenders always compute in float32.
        pytorch: ways of :data:`scaleport.benchmark.contenders.PYTORCH`.
        sizes: LR sizes (height, width).
        scales: scales of both axes.
        threads: processor threads of every contender.
        rounds: number of rounds; every contender runs once in each.
        least: minimum length of one turn in seconds.
        memory: whether peak memory is measured.
    """

    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    inference_precision: str = ""
    pytorch: tuple[str, ...] = ("eager", "compile")
    sizes: tuple[tuple[int, int], ...] = ((96, 96),)
    scales: tuple[float, ...] = (2.0, 4.0)
    threads: int = 1
    rounds: int = 5
    least: float = 0.2
    memory: bool = True


@dataclass(frozen=True)
class Row:
    """One contender at one size and scale.

    Attributes:
        inference_precision: what was computed in, where that is not what graphs are written in.
        seconds: of one upscale.
        megapixels: output, in millions per second.
        gmacs: thousand million multiply-adds per second; None if they are not known.
        of_ceiling: that rate as a part of the fastest matrix product's, in the same rounds.
        faster: how many times faster than PyTorch eager; None if that does not take part.
        peak_mib: peak memory of a process that does just this, in MiB; None if not measured.
        before_mib: what of it was there before the bundle was loaded.
    """

    bundle: str
    contender: str
    precision: str
    inference_precision: str
    size: tuple[int, int]
    scale: float
    seconds: Spread
    megapixels: float
    gmacs: float | None
    of_ceiling: Spread | None
    faster: Spread | None
    peak_mib: float | None
    before_mib: float | None


@dataclass
class Benchmark:
    """Measurements, their environment, and what could not be measured."""

    surroundings: dict[str, Any]
    ceiling: dict[str, float] = field(default_factory=dict)
    """Thousand million multiply-adds per second of each library's matrix product, medians."""
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def bench(
    bundles: Sequence[Path | str],
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure time, throughput and peak memory of bundles, with PyTorch beside them.

    Contenders take turns, round by round; matrix products take turns with them and are the ceiling
    that arithmetic is compared with.

    Args:
        bundles: bundle directories.
        options: what is measured.
        progress: told of each round, see :mod:`scaleport.progress`.

    Raises:
        ArtifactError: if a bundle is damaged.
        BackendError: if a backend that was named cannot run here.
        ScaleError: if a scale is outside a model's range.
        UsageError: if a name is unknown, or nothing is left to measure.
    """
    options, progress = options or BenchOptions(), progress or silent
    opened, cases = _cases(bundles, options)
    made = Benchmark(surroundings(options.threads))
    ceilings = products(options.threads)
    found = {bundle.path: _contenders(bundle, options, made.skipped) for bundle in opened}
    work = {bundle.path: deploy_work(bundle.manifest) for bundle in opened}
    rates: dict[str, list[float]] = {name: [] for name in ceilings}
    turns = options.rounds + 1
    for number, (bundle, size, scale) in enumerate(cases):
        what = f"{bundle.manifest.name} {size[1]}x{size[0]} x{scale:g}"
        tell = part(progress, number, number + 1, len(cases), what)

        def told(done: int, tell: Progress = tell, what: str = what) -> None:
            tell(done, turns, f"{what}, round {done} of {turns}")

        told(0)
        everyone = found[bundle.path]
        image = noise(*size)
        calls = {contender.label: contender.on(image, scale) for contender in everyone}
        seconds = rounds({**ceilings, **calls}, options.rounds, options.least, told)
        for name in ceilings:
            rates[name] += [MACS / value / 1e9 for value in seconds[name]]
        grid = Grid.from_scale(*size, scale)
        known = work[bundle.path]
        count = None if known is None else macs(known, bundle.manifest, grid)
        best = min(ceilings, key=lambda name: statistics.median(seconds[name]))
        for contender in everyone:
            tell(1, 1, f"{what}, memory of {contender.label}")
            peak = _peak(contender, bundle, options, size, scale)
            made.rows.append(_row(bundle, contender, grid, scale, seconds, count, best, peak))
    made.ceiling = {name: statistics.median(values) for name, values in rates.items()}
    return made


def _cases(
    bundles: Sequence[Path | str], options: BenchOptions
) -> tuple[list[Bundle], list[tuple[Bundle, tuple[int, int], float]]]:
    """The bundles, and each with every size and scale; what cannot be measured is refused first."""
    for way in options.pytorch:
        missing_for(way)
    opened = [open_bundle(path) for path in bundles]
    cases = list(product(opened, options.sizes, options.scales))
    for bundle, size, scale in cases:
        checked_grid(bundle.manifest, *size, scale, None)
    return opened, cases


def _peak(
    contender: Contender,
    bundle: Bundle,
    options: BenchOptions,
    size: tuple[int, int],
    scale: float,
) -> Peak:
    """Peak memory of a process that runs one contender, if that is measured."""
    if not options.memory or not contender.backend:
        return None, None
    name, precision, other = contender.backend, contender.precision, contender.inference_precision
    return peak_of(bundle.path, name, precision, options.threads, size, scale, other)


def _row(
    bundle: Bundle,
    contender: Contender,
    grid: Grid,
    scale: float,
    seconds: Seconds,
    count: float | None,
    ceiling: str,
    peak: Peak,
) -> Row:
    spread = Spread.of(seconds[contender.label])
    share = None
    if count is not None:
        per_round = ratios(seconds, ceiling, contender.label)
        part = count / MACS
        share = Spread(per_round.median * part, per_round.low * part, per_round.high * part)
    eager = f"{EAGER} fp32"
    height, width = grid.output_size
    return Row(
        bundle=bundle.manifest.name,
        contender=contender.name,
        precision=contender.precision,
        inference_precision=contender.inference_precision,
        size=grid.input_size,
        scale=scale,
        seconds=spread,
        megapixels=height * width / spread.median / 1e6,
        gmacs=None if count is None else count / spread.median / 1e9,
        of_ceiling=share,
        faster=ratios(seconds, eager, contender.label) if eager in seconds else None,
        peak_mib=peak[0],
        before_mib=peak[1],
    )


def _contenders(bundle: Bundle, options: BenchOptions, skipped: dict[str, str]) -> list[Contender]:
    """Everyone who takes part; who was not asked for by name and cannot is noted instead."""
    found: list[Contender] = []
    for way in options.pytorch:
        try:
            found.append(of_pytorch(bundle, way, options.threads))
        except ScaleportError as error:
            skipped[PYTORCH[way]] = str(error)
    names = options.backends or _usable(bundle, skipped)
    for name in names:
        backend = get_backend(name)
        reason = refusal_of(backend, options.inference_precision)
        if reason and options.backends:
            raise BackendError(reason)
        if reason:
            skipped[name] = reason
            continue
        there = bundle.precisions(stored_format(backend))
        for precision in options.precisions or there:
            if precision not in backend.precisions:
                continue
            try:
                other = options.inference_precision
                found.append(of_backend(bundle, name, precision, options.threads, other))
            except UsageError as error:
                # One bundle of several may lack a precision that another has.
                skipped[f"{bundle.manifest.name} {name} {precision}"] = str(error)
    if not any(contender.backend for contender in found):
        raise UsageError(f"{bundle.path} has no graphs of the backends and precisions asked for")
    return found


def _usable(bundle: Bundle, skipped: dict[str, str]) -> list[str]:
    usable = []
    for name in ranked_names():
        backend = get_backend(name)
        state = backend.availability()
        if stored_format(backend) not in bundle.formats():
            skipped.setdefault(name, f"{bundle.path} has no graphs for it")
        elif not state.usable:
            skipped.setdefault(name, state.reason)
        elif state.emulated:
            skipped.setdefault(name, "only emulated here; name it with --backend to measure that")
        else:
            usable.append(name)
    return usable
