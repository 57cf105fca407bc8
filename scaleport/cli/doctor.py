"""``scaleport doctor``: what can run here, and what a bundle does on it."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaleport.cli.completing import complete_model
from scaleport.cli.output import (
    JsonFlag,
    Output,
    QuietFlag,
    VerboseFlag,
    error_line,
    put,
)
from scaleport.cli.targets import show_target
from scaleport.errors import BackendError, GateFailed, ScaleportError, UsageError
from scaleport.progress import Steps

if TYPE_CHECKING:
    from scaleport.bundle.reader import Bundle
    from scaleport.runtimes.base import Availability
    from scaleport.validation.operators import Coverage
    from scaleport.validation.selftest import SelfTest

EXAMPLES = """\b
Examples:
  scaleport doctor
  scaleport doctor photo.bundle
  scaleport doctor photo.bundle --backend openvino --json
  scaleport doctor npu.bundle --target qnn
"""

_TRIAL_SIZE = (19, 23)
"""Rows and columns of the image that each backend upscales: odd, and unlike each other."""
_TRIAL_SCALE = 2.3


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE|NAME",
            autocompletion=complete_model,
            help="Check this bundle too: hashes, and a small image per backend.",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option("--backend", metavar="NAME", help="Only this one, which must be usable."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="BUNDLE|NAME", help="The same as BUNDLE."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="NAME",
            help="Only say which operations of the bundle a processor takes, by its maker's lists: "
            "npu, qnn, ane, webgpu or trt. The exit code is 1 if one is not taken.",
        ),
    ] = "",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Show which backends can run here, why the others cannot, and what to install for them.

    Every usable backend runs a tiny network from the package, and its output is compared with
    that of PyTorch. With a bundle, the hash of every file is checked, every usable backend loads
    every graph and upscales a small image, and operations are counted by the device that runs
    them. A missing backend is a failure only if --backend names it. -v also imports torch, to find
    its device.
    """
    from scaleport.bundle.reader import open_bundle
    from scaleport.runtimes.registry import availability, backend_names, get_backend, require

    out = Output(as_json, quiet, verbose)
    if bundle is not None and model is not None:
        raise UsageError("give the bundle once: as BUNDLE or with --model")
    bundle = bundle or model
    if target:
        show_target(out, None if bundle is None else open_bundle(bundle), target)
        return
    names = list(dict.fromkeys(backends or backend_names()))
    found: dict[str, Availability] = {}
    with out.libraries():
        for name in names:
            if backends:
                found[name] = require(name)[1]
            else:
                found[name] = availability(name, probe=verbose or bundle is not None)
    # A wrong path is known before everything else is tried.
    opened = None if bundle is None else open_bundle(bundle)
    out.say(
        f"scaleport {_version('scaleport')}, Python {platform.python_version()}, "
        f"numpy {_version('numpy')}, {platform.platform()}"
    )
    out.say_table([("backend", "usable", "version", "runs on, or the reason"), *_rows(found)])
    usable = [name for name in names if found[name].usable]
    probed = verbose or bundle is not None or bool(backends)
    asked = [name for name in usable if probed or not _is_slow(name)]
    with out.progress() as progress, out.libraries():
        tests = _golden(asked, Steps(progress))
    out.say_table([("golden tile", "parity", "PSNR dB", "ran on"), *map(_golden_row, tests)])
    checks: list[Check] = []
    covered: dict[str, tuple[Coverage, ...]] = {}
    if opened is not None:
        with out.progress() as progress, out.libraries():
            checks = _check_bundle(opened, usable, bool(backends), Steps(progress))
        out.say(f"{bundle}")
        out.say_table([_check_row(check) for check in checks if check.error is None])
        if checks[0].error is None:
            with out.progress() as progress, out.libraries():
                covered = _covered(opened, names, Steps(progress))
        rows = [row for name, items in covered.items() for row in _coverage_rows(out, name, items)]
        if rows:
            out.say_table([("operations of", "graphs", "count", "run by"), *rows])
    devices = {name: get_backend(name).devices() for name in asked}
    out.result(_report(found, tests, bundle, checks, covered, devices))
    failures: list[ScaleportError] = [c.error for c in checks if c.error is not None]
    failures += [
        GateFailed(f"{test.backend} computes the golden tile wrongly: {test.note}")
        for test in tests
        if not test.passed
    ]
    for error in failures:
        put(error_line(str(error)), err=True)
    if failures:
        raise typer.Exit(failures[0].exit_code)


@dataclass(frozen=True)
class Check:
    """One thing that was tried on a bundle, and its error if it failed."""

    what: str
    backend: str = ""
    precision: str = ""
    device: str = ""
    graphs: int = 0
    seconds: float = 0.0
    error: ScaleportError | None = None


def _is_slow(name: str) -> bool:
    """Whether a backend's library takes longer to import than everything else here together."""
    from scaleport.runtimes.base import offers
    from scaleport.runtimes.registry import get_backend

    return offers(get_backend(name), "glance")


def _golden(names: list[str], step: Steps) -> list[SelfTest]:
    from scaleport.runtimes.registry import get_backend
    from scaleport.validation.selftest import has_tile, self_test

    tests = []
    for name in names:
        if has_tile(get_backend(name)):
            step(f"golden tile on {name}")
            tests.append(self_test(name))
    return tests


def _golden_row(test: SelfTest) -> tuple[str, ...]:
    ratio = "-" if test.psnr is None else f"{test.psnr:.1f}"
    return (test.backend, "ok" if test.passed else "WRONG", ratio, test.device or test.note)


def _covered(bundle: Bundle, names: list[str], step: Steps) -> dict[str, tuple[Coverage, ...]]:
    from scaleport.runtimes.base import source_format
    from scaleport.runtimes.registry import get_backend
    from scaleport.validation.operators import coverage_of, is_known

    found = {}
    for name in filter(is_known, names):
        form = source_format(get_backend(name))
        step(f"operations on {name}")
        items = [c for p in bundle.precisions(form) for c in coverage_of(bundle, name, p)]
        if items:
            found[name] = tuple(items)
    return found


def _coverage_rows(out: Output, name: str, items: Sequence[Coverage]) -> list[tuple[str, ...]]:
    """One row per precision; graphs that need words of their own, and with -v all, have their own.

    Words of their own need graphs that run in more than one place, or not at all.
    """
    rows = []
    alike: dict[tuple[str, str], list[Coverage]] = {}
    for item in items:
        places = tuple(item.places or {})
        if out.verbose or item.unsupported or item.note or len(places) != 1:
            rows.append(_coverage_row(name, item))
        else:
            alike.setdefault((item.precision, places[0]), []).append(item)
    for (precision, place), group in alike.items():
        graphs = f"{precision}, {len(group)} graphs"
        rows.append((name, graphs, str(sum(item.operations for item in group)), place))
    return rows


def _coverage_row(name: str, item: Coverage) -> tuple[str, ...]:
    ran = ", ".join(f"{count} {place}" for place, count in (item.places or {}).items())
    if item.unsupported:
        ran += f"; NOT TAKEN: {', '.join(item.unsupported)}"
    count = f"{item.operations} of {item.kinds} kinds" if item.operations else "-"
    return (name, f"{item.precision} {item.stage}", count, item.note or ran)


def _check_bundle(bundle: Bundle, usable: list[str], asked: bool, step: Steps) -> list[Check]:
    from scaleport.runtimes.base import stored_format
    from scaleport.runtimes.registry import get_backend

    step("hashes")
    start = time.perf_counter()
    try:
        bundle.verify()
    except ScaleportError as error:
        return [Check("hashes", error=error)]
    checks = [Check("hashes", graphs=len(bundle.manifest.files), seconds=_since(start))]
    tried = False
    for name in usable:
        precisions: tuple[str, ...] = bundle.precisions(stored_format(get_backend(name)))
        if not precisions and asked:
            precisions = ("fp32",)
        for precision in precisions:
            step(f"{name} {precision}")
            checks.append(_try(bundle, name, precision))
            tried = True
    if not tried:
        there = ", ".join(bundle.formats()) or "none"
        missing = BackendError(
            f"no backend that is usable here runs {bundle.path}; its formats: {there}"
        )
        checks.append(Check("run", error=missing))
    return checks


def _try(bundle: Bundle, backend: str, precision: str) -> Check:
    import numpy as np

    from scaleport.runtimes.base import stored_format
    from scaleport.runtimes.upscaler import load

    scales = bundle.manifest.scale
    scale = min(max(_TRIAL_SCALE, scales.min), scales.max)
    image = np.arange(3 * _TRIAL_SIZE[0] * _TRIAL_SIZE[1], dtype=np.uint32) * 37 % 256
    start = time.perf_counter()
    try:
        upscaler = load(bundle, backend, precision)
        own = upscaler.stages.backend
        graphs = bundle.graphs(stored_format(own), None, precision)
        # A checkpoint has no whole graphs, only the stages.
        plain = own.runs_checkpoint
        stages = [g.stage for g in graphs if not plain or not g.stage.startswith("whole")]
        for stage in stages:
            upscaler.stages.session(stage)
        upscaler(image.astype(np.uint8).reshape(*_TRIAL_SIZE, 3), scale)
    except ScaleportError as error:
        return Check("run", backend, precision, error=error)
    return Check("run", backend, precision, upscaler.device, len(stages), _since(start))


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


def _rows(found: dict[str, Availability]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, state in found.items():
        said = state.device if state.usable else state.reason
        if state.can_build and not state.usable:
            said += " Engines can be built here."
        if state.extra:
            said += f"; {_install(state)}"
        rows.append((name, "yes" if state.usable else "no", state.version or "-", said))
    return rows


def _check_row(check: Check) -> tuple[str, ...]:
    if check.what == "hashes":
        return ("hashes", "ok", f"{check.graphs} files", f"{check.seconds:.2f} s")
    counted = f"{check.graphs} graphs on {check.device}"
    return (f"{check.backend} {check.precision}", "ok", counted, f"{check.seconds:.2f} s")


def _install(state: Availability) -> str | None:
    """The line that installs what is missing, if a package is."""
    return f"pip install 'scaleport[{state.extra}]'" if state.extra else None


def _report(
    found: dict[str, Availability],
    tests: list[SelfTest],
    bundle: Path | None,
    checks: list[Check],
    covered: dict[str, tuple[Coverage, ...]],
    devices: dict[str, tuple[str, ...]],
) -> dict[str, Any]:
    return {
        "scaleport": _version("scaleport"),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "backends": found,
        "install": {name: _install(state) for name, state in found.items() if state.extra},
        "devices": devices,
        "golden_tile": tests,
        "bundle": bundle,
        "operations": covered,
        "checks": [
            {
                "check": check.what,
                "backend": check.backend,
                "precision": check.precision,
                "device": check.device,
                "seconds": check.seconds,
                "ok": check.error is None,
                "error": None if check.error is None else str(check.error),
            }
            for check in checks
        ],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
