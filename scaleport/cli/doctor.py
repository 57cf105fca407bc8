"""``scaleport doctor``: what can run here, and what a bundle does on it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
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
from scaleport.errors import UsageError

if TYPE_CHECKING:
    from scaleport.runtimes.base import Availability
    from scaleport.validation.doctor import Check, Diagnosis
    from scaleport.validation.operators import Coverage
    from scaleport.validation.selftest import SelfTest

EXAMPLES = """\b
Examples:
  scaleport doctor
  scaleport doctor photo.bundle
  scaleport doctor photo.bundle --backend openvino --json
  scaleport doctor npu.bundle --target qnn
"""


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
            "npu, qnn, directml, ane, webgpu or trt. The exit code is 1 if one is not taken.",
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
    from scaleport.validation.doctor import Examination

    out = Output(as_json, quiet, verbose)
    if bundle is not None and model is not None:
        raise UsageError("give the bundle once: as BUNDLE or with --model")
    bundle = bundle or model
    if target:
        from scaleport.bundle.reader import open_bundle

        show_target(out, None if bundle is None else open_bundle(bundle), target)
        return
    with out.libraries():
        work = Examination(bundle, backends or (), probe=verbose)
    out.say(
        f"scaleport {_version('scaleport')}, Python {platform.python_version()}, "
        f"numpy {_version('numpy')}, {platform.platform()}"
    )
    heads = ("backend", "usable", "version", "runs on, or the reason")
    out.say_table([heads, *_rows(work.backends)])
    with out.progress() as progress, out.libraries():
        found = work.run(progress)
    out.say_table(
        [("golden tile", "parity", "PSNR dB", "ran on"), *map(_golden_row, found.golden_tile)]
    )
    if bundle is not None:
        out.say(f"{bundle}")
        out.say_table([_check_row(check) for check in found.checks if check.error is None])
        rows = [
            row
            for name, items in found.operations.items()
            for row in _coverage_rows(out, name, items)
        ]
        if rows:
            out.say_table([("operations of", "graphs", "count", "run by"), *rows])
    out.result(_report(found, bundle))
    for error in found.failures:
        put(error_line(str(error)), err=True)
    if found.failures:
        raise typer.Exit(found.failures[0].exit_code)


def _golden_row(test: SelfTest) -> tuple[str, ...]:
    ratio = "-" if test.psnr is None else f"{test.psnr:.1f}"
    return (test.backend, "ok" if test.passed else "WRONG", ratio, test.device or test.note)


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


def _report(found: Diagnosis, bundle: Path | None) -> dict[str, Any]:
    return {
        "scaleport": _version("scaleport"),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "backends": found.backends,
        "install": {name: _install(state) for name, state in found.backends.items() if state.extra},
        "devices": found.devices,
        "golden_tile": found.golden_tile,
        "bundle": bundle,
        "operations": found.operations,
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
            for check in found.checks
        ],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
