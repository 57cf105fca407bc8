"""Which network runs where: every network through every format, as a table.

``python -m tools.coverage`` exports small versions of the named networks, with
random weights, and holds every graph against PyTorch over the quick parity grid. The results are
kept in a JSON file after each network, so that an interrupted run goes on, and the table is made
from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from scaleport.atomic import write_bytes, write_text
from scaleport.bundle.manifest import Manifest, ParityResult
from scaleport.bundle.reader import open_bundle
from scaleport.errors import ArtifactError, ScaleportError, UnsupportedOpError, UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.models import Network, build_network, save_checkpoint
from scaleport.models.compositions import COMPOSITIONS
from scaleport.shipped import shipped_weights
from scaleport.validation.parity.combinations import combinations_of
from scaleport.validation.parity.gates import NOT_RUN
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate

BACKENDS = ("onnxruntime", "openvino", "coreml", "tensorrt")
PRECISIONS = ("fp32", "fp16")
COLUMNS = ("integer", "real", "tiled")
Status = Literal["pass", "built", "fail", "n/a"]

# Systems of the papers that a greedy choice would replace by plainer ones with the same parts.
_FIRST = (
    "edsr-baseline-igconv-plus",
    "edsr-baseline-igconv",
    "edsr-baseline-ipe-liif",
    "edsr-baseline-liif",
    "edsr-baseline-metasr",
    "edsr-baseline-hiif",
    "eqsr",
    "msit-edsr",
    "c2d-swinir-light-x2",
    "c2d-srformer-light-x2",
    "c2d-swinir-light-stage1",
)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one network, backend, precision and way of running came to.

    Attributes:
        status: ``pass``; ``built``: engines were built, no GPU ran them; ``fail``; ``n/a``.
        reason: why it failed, or does not apply.
        cases: comparisons made.
        worst: smallest PSNR in dB against PyTorch in fp32; None if all were equal, or none made.
    """

    status: Status
    reason: str = ""
    cases: int = 0
    worst: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One network: a hash of what was run, and cells by ``backend/precision/column``."""

    name: str
    config: str
    cells: dict[str, Cell]


def parts(name: str) -> tuple[str, str]:
    """Encoder and upsampler of a composition, with the variant where there are several."""
    config = COMPOSITIONS[name].config
    encoder, variant = config["encoder"]["name"], config["encoder"].get("base")
    # What an encoder refines is an encoder with a row of its own.
    encoder = f"{encoder}-{variant}" if isinstance(variant, str) else encoder
    return encoder, config["upsampler"]["name"]


def chosen() -> list[str]:
    """Compositions that together hold every encoder and every upsampler at least once."""
    names, seen = [], set[tuple[str, str]]()
    for name in dict.fromkeys((*_FIRST, *COMPOSITIONS)):
        encoder, upsampler = parts(name)
        found = {("encoder", encoder), ("upsampler", upsampler)}
        if found - seen or name in _FIRST:
            names.append(name)
            seen |= found
    return names


def config_hash(name: str) -> str:
    """Identifies what a row was measured on."""
    text = json.dumps(COMPOSITIONS[name].small, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def random_network(name: str) -> Network:
    """The small version of a composition, random also where fresh weights are zeros or ones."""
    torch.manual_seed(0)
    network = build_network(COMPOSITIONS[name].small).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if torch.equal(parameter, parameter.flatten()[0].expand_as(parameter)):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def measure(name: str) -> Row:
    """Export a network in every format and compare what can run here.

    Raises:
        UsageError: if there is no such composition.
    """
    if name not in COMPOSITIONS:
        raise UsageError(f"unknown network {name!r}; `scaleport inspect --models` lists them")
    network = random_network(name)
    with tempfile.TemporaryDirectory(prefix="scaleport-") as folder:
        checkpoint, target = Path(folder) / f"{name}.safetensors", Path(folder) / "bundle"
        save_checkpoint(network, checkpoint, {})
        # The other native scales run through the graph that takes kernels as inputs.
        natives = network.upsampler.native_scales
        freeze = natives[:1] if len(natives) > 1 else None
        try:
            manifest = export_bundle(checkpoint, target, ExportOptions(freeze_scales=freeze))
        except UnsupportedOpError as error:
            cells = {key: Cell(status="n/a", reason=str(error)) for key in _keys()}
        except ScaleportError as error:
            cells = {key: Cell(status="fail", reason=str(error)) for key in _keys()}
        else:
            results, reasons = compared(target, BACKENDS)
            cells = {
                key: _cell(manifest, key, results, reasons, network.tiling.reason)
                for key in _keys()
            }
    return Row(name=name, config=config_hash(name), cells=cells)


def compared(
    target: Path, backends: Collection[str]
) -> tuple[tuple[ParityResult, ...], dict[str, str]]:
    """Compare a bundle with PyTorch on some backends, those that can run here.

    Others are not run: PyTorch's own float16, for one, takes longest of all on most processors.

    Returns:
        The comparisons, and why backends were not run, by name.
    """
    bundle = open_bundle(target)
    combinations, left_out = combinations_of(bundle, None, None, "quick")
    there = [one.backend for one in combinations if one.backend in backends]
    options = ValidationOptions(backends=tuple(dict.fromkeys(there)), selection="quick")
    reasons = {name: text.removeprefix(NOT_RUN) for name, text in left_out.items()}
    return validate(bundle, options).results, reasons


def _keys() -> Iterator[str]:
    for backend in BACKENDS:
        for precision in PRECISIONS:
            for column in COLUMNS:
                yield f"{backend}/{precision}/{column}"


def column_of(result: ParityResult) -> str:
    """The column that a parity case counts in."""
    if result.mode == "tiled":
        return "tiled"
    whole = all(float(value).is_integer() for value in result.scale)
    return "integer" if whole else "real"


def _cell(
    manifest: Manifest,
    key: str,
    results: Iterable[ParityResult],
    reasons: dict[str, str],
    tiling: str,
) -> Cell:
    backend, precision, column = key.split("/")
    if column == "tiled" and manifest.tiling != "exact":
        words = "not cut into tiles" if manifest.tiling == "not-allowed" else "tiles approximate"
        return Cell(status="n/a", reason=f"{words}: {tiling}")
    mine = [r for r in results if column_of(r) == column]
    return cell_of(manifest, backend, precision, mine, reasons)


def cell_of(
    manifest: Manifest,
    backend: str,
    precision: str,
    results: Iterable[ParityResult],
    reasons: dict[str, str],
) -> Cell:
    """What a backend came to in a precision.

    Args:
        manifest: the bundle's.
        backend: name of the backend.
        precision: of the graphs.
        results: comparisons, of other backends and precisions too.
        reasons: why backends were not run, by name.
    """
    if backend in reasons:
        there = {graph.precision for graph in manifest.graphs.get(backend, ())}
        if backend == "tensorrt" and precision in there:
            return Cell(status="built", reason="engines are built; running them needs their GPU")
        return Cell(status="n/a", reason=reasons[backend])
    mine = [
        r
        for r in results
        if r.backend == backend
        and r.precision == precision
        and (r.max_abs is not None or not r.passed)
    ]
    if not mine:
        return Cell(status="n/a", reason="no scale of this kind is in its range")
    ratios = [r.psnr for r in mine if r.psnr is not None]
    worst = round(min(ratios), 1) if ratios else None
    failed = [r for r in mine if not r.passed]
    if failed:
        note = f"{failed[0].note} ({failed[0].shape_name}, x{failed[0].scale[0]:g})"
        return Cell(status="fail", reason=note, cases=len(mine), worst=worst)
    return Cell(status="pass", cases=len(mine), worst=worst)


def read_rows(path: Path) -> dict[str, Row]:
    """Rows measured so far, by name; none if there is no file.

    Raises:
        ArtifactError: if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[Row])
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{path} is damaged: {error}; delete it and measure anew") from error
    return {row.name: row for row in rows}


def write_rows(path: Path, rows: dict[str, Row]) -> None:
    """Keep rows, in the order of the compositions, complete or not at all; raises OutputError."""
    ordered = [rows[name] for name in COMPOSITIONS if name in rows]
    data: Any = msgspec.json.format(msgspec.json.encode(ordered), indent=1)
    write_bytes(path, data + b"\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from rich.console import Console

    from tools import coverage_static as fixed
    from tools.coverage_table import table

    parser = argparse.ArgumentParser(
        prog="python -m tools.coverage", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("names", nargs="*", help="networks [default: all parts at least once]")
    parser.add_argument("--json", type=Path, default=Path("docs/coverage.json"))
    parser.add_argument("--static-json", type=Path, default=Path("docs/coverage_static.json"))
    parser.add_argument("--table", type=Path, default=Path("docs/coverage.md"))
    parser.add_argument("--anew", action="store_true", help="measure known rows again")
    parser.add_argument("--static", action="store_true", help="measure graphs of fixed shape")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the table")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        rows, static = read_rows(options.json), fixed.read_static(options.static_json)
        rows = {name: row for name, row in rows.items() if is_current(row)}
        static = {name: row for name, row in static.items() if fixed.is_current(row)}
        if options.render:
            pass
        elif options.static:
            wanted = options.names or list(dict.fromkeys((*shipped_weights(), *chosen())))
            missing = [name for name in wanted if options.anew or name not in static]
            for name in shown(missing, console):
                static[name] = fixed.measure_static(name)
                fixed.write_static(options.static_json, static)
        else:
            wanted = options.names or chosen()
            missing = [name for name in wanted if options.anew or name not in rows]
            for name in shown(missing, console):
                rows[name] = measure(name)
                write_rows(options.json, rows)
        write_text(options.table, table(rows, static))
    except ScaleportError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    cells = [(row.name, row.cells) for row in rows.values()]
    cells += [(row.name, row.cells) for row in static.values()]
    failed = [name for name, mine in cells if any(c.status == "fail" for c in mine.values())]
    if failed:
        console.print(f"failed: {', '.join(dict.fromkeys(failed))}", soft_wrap=True)
    return 1 if failed else 0


def is_current(row: Row) -> bool:
    """Whether a row is of a composition as it is now."""
    return row.name in COMPOSITIONS and row.config == config_hash(row.name)


def shown(names: list[str], console: Any) -> Iterator[str]:
    """Names, one after the other, with a bar that says which one is worked on."""
    from rich.progress import Progress

    with Progress(console=console) as progress:
        task = progress.add_task("networks", total=len(names))
        for name in names:
            progress.update(task, description=name)
            yield name
            progress.advance(task)


if __name__ == "__main__":
    sys.exit(main())
