"""The parity report as one page that needs nothing else: no server, no network, no script."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from scaleport.bundle.manifest import CHECKPOINT_NAME, Manifest, Parity, ParityResult
from scaleport.errors import BackendError, OutputError
from scaleport.validation.parity.cases import REFUSED
from scaleport.validation.parity.gates import evaluated, not_run, passed
from scaleport.validation.report.raster import ERROR_RANGE, legend
from scaleport.validation.report.summary import (
    failures,
    precision_of,
    scale_text,
    summarise,
    verdict,
)

_WORST: Final = 12
"""Cases in the table of the worst."""


@dataclass(frozen=True)
class Picture:
    """One rendering beside its reference: captions, numbers and pictures as ``data:`` addresses."""

    backend: str
    precision: str
    case: str
    input: str
    reference: str
    output: str
    error: str
    max_abs: float | None
    psnr: float | None
    milliseconds: float | None = None
    device: str = ""
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """All pictures of a report. ``skipped`` are those that could not be made, with the reason."""

    sample: tuple[Picture, ...] = ()
    worst: tuple[Picture, ...] = ()
    skipped: tuple[str, ...] = ()
    sample_text: str = ""
    load_average: str = ""


@dataclass(frozen=True)
class Cell:
    """The cases of one row and scale of the matrix: how many, how many passed, the worst PSNR."""

    text: str
    state: str
    title: str


def render_page(manifest: Manifest, parity: Parity, evidence: Evidence | None = None) -> str:
    """The report as HTML.

    Args:
        manifest: what was exported.
        parity: the results.
        evidence: pictures and times; a page without them says how to get them.

    Raises:
        BackendError: if Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise BackendError(
            "a report needs Jinja2, which is not installed: pip install 'scaleport[report]'"
        ) from error
    template = files("scaleport.validation.report").joinpath("templates/report.html")
    source = template.read_text("utf-8")
    # Names and notes come out of bundles and libraries: everything is escaped.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        scale=scale_text,
        precision=precision_of,
        decibels=_decibels,
        small=_small,
        number=lambda n: f"{n:,}",
    )
    scales = sorted({r.scale for r in parity.results if r.note != REFUSED})
    return environment.from_string(source).render(
        manifest=manifest,
        parity=parity,
        evidence=evidence or Evidence(),
        verdict=verdict(parity),
        passed=passed(parity),
        rows=summarise(parity),
        matrix=[(row, [_cell(parity, row, s) for s in scales]) for row in _groups(parity)],
        scales=scales,
        worst=worst_first(parity.results)[:_WORST],
        cases=worst_first(parity.results),
        failed=len(failures(parity)),
        not_run=not_run(parity),
        evaluated=evaluated(parity),
        exported=_exported(manifest),
        environment=_environment(parity, evidence),
        plan=sorted({g.float32_nodes for gs in manifest.graphs.values() for g in gs} - {""}),
        legend=legend(),
        decades=ERROR_RANGE,
        inf=math.inf,
    )


def check_place(path: Path) -> None:
    """Refuse a report's place before minutes are spent on what it is to hold.

    Raises:
        OutputError: if nothing can be written there.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: its directory is read-only")


def worst_first(results: Sequence[ParityResult]) -> list[ParityResult]:
    """Failed cases first, those with an error before all; then by PSNR, the least first."""

    def key(result: ParityResult) -> tuple[bool, bool, float]:
        measured = result.max_abs is not None
        ratio = math.inf if result.psnr is None else result.psnr
        return result.passed, measured != result.passed, ratio

    return sorted(results, key=key)


def _groups(parity: Parity) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((r.backend, precision_of(r), r.mode) for r in parity.results))


def _cell(parity: Parity, row: tuple[str, str, str], scale: tuple[float, float]) -> Cell:
    mine = [
        r
        for r in parity.results
        if (r.backend, precision_of(r), r.mode) == row and r.scale == scale and r.note != REFUSED
    ]
    if not mine:
        return Cell("", "none", "not part of the grid for this model")
    worst = worst_first(mine)[0]
    good = sum(r.passed for r in mine)
    state = "ok" if good == len(mine) else "bad"
    text = _decibels(worst.psnr) if worst.max_abs is not None else "error"
    return Cell(text, state, f"{good} of {len(mine)} passed; worst: {worst.shape_name}")


def _decibels(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _exported(manifest: Manifest) -> list[tuple[str, str]]:
    model = manifest.model
    parts = [str(model.get(k, {}).get("name", "?")) for k in ("encoder", "upsampler")]
    limits = manifest.scale
    scales = f"x{limits.min:g} to x{limits.max:g}"
    if limits.native:
        scales += ", native " + ", ".join(f"x{n}" for n in limits.native)
    rows = [
        ("Model", manifest.name),
        ("Network", f"{parts[0]} encoder, {parts[1]} upsampler ({manifest.family})"),
        ("Parameters", f"{manifest.parameters:,}"),
        ("Scales", scales),
        ("Tiling", f"{manifest.tiling}, overlap {manifest.receptive_field} pixels"),
        ("Licence", manifest.license or "not stated"),
    ]
    checkpoint = manifest.files.get(CHECKPOINT_NAME)
    if checkpoint is not None:
        rows.append(("Checkpoint SHA-256", checkpoint.sha256))
    for form, graphs in sorted(manifest.graphs.items()):
        precisions = ", ".join(dict.fromkeys(g.precision for g in graphs))
        size = sum(e.bytes for n, e in manifest.files.items() if n.startswith(f"{form}/"))
        rows.append((f"Format {form}", f"{len(graphs)} graphs ({precisions}), {size / 1e6:.1f} MB"))
    rows += [(f"Not written: {form}", reason) for form, reason in manifest.skipped.items()]
    return rows


def _environment(parity: Parity, evidence: Evidence | None) -> list[tuple[str, Any]]:
    left_out = not_run(parity)
    rows = [
        ("Written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("System", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]
    rows += [(f"Version of {name}", text) for name, text in parity.tool_versions.items()]
    how = dict.fromkeys(evaluated(parity), "was evaluated by")
    rows += [
        (f"{n} {how.get(n, 'ran on')}", text)
        for n, text in parity.device.items()
        if n not in left_out
    ]
    if evidence is not None and evidence.load_average:
        rows.append(("Load while timing", evidence.load_average))
    return rows
