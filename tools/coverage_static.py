"""Which network runs where with graphs of fixed shape: ``python -m tools.coverage --static``.

Small versions of the named networks with random weights, as in :mod:`tools.coverage`, and the
shipped networks as they are, are exported with one shape and held against PyTorch over the quick
parity grid: that shape, smaller pictures where a network takes them exactly, and a larger one in
tiles where tiles are exact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from scaleport.atomic import write_bytes
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Manifest
from scaleport.errors import (
    ArtifactError,
    ExportError,
    ScaleportError,
    UnsupportedOpError,
    UsageError,
)
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.export.static import StaticShape
from scaleport.models import save_checkpoint
from scaleport.models.compositions import COMPOSITIONS
from scaleport.shipped import shipped_weights
from tools.coverage import (
    BACKENDS,
    PRECISIONS,
    Cell,
    cell_of,
    compared,
    config_hash,
    random_network,
)

SHIPPED_SHAPE: Final = (80, 88)
"""What the shipped networks are exported for; nothing is a multiple of a power of two by chance."""
_FIXED: Final = "executorch"
"""Format and backend of graphs of fixed shape only."""
_SIDES: Final = (24, 40, 72, 96, 128, 256, 320)
"""LR sides that are tried for the others: tiles overlap, and must leave something of each."""


class StaticRow(msgspec.Struct, frozen=True, kw_only=True):
    """One network with fixed shapes.

    Attributes:
        name: of a composition or of shipped weights.
        source: a hash of what was run.
        shape: height and width of the image that its graphs take; 0 where nothing was exported.
        cells: by ``backend/precision``.
    """

    name: str
    source: str
    shape: tuple[int, int]
    cells: dict[str, Cell]


def static_names() -> list[str]:
    """Networks that may have a row: the shipped ones, then the compositions."""
    return [*shipped_weights(), *(name for name in COMPOSITIONS if name not in shipped_weights())]


def source_hash(name: str) -> str:
    """Identifies what a row was measured on."""
    shipped = shipped_weights()
    return sha256_file(shipped[name]).sha256[:16] if name in shipped else config_hash(name)


def is_current(row: StaticRow) -> bool:
    """Whether a row is of a network as it is now."""
    return row.name in static_names() and row.source == source_hash(row.name)


def measure_static(name: str) -> StaticRow:
    """Export a network with one shape in every format and compare what can run here.

    Raises:
        UsageError: if there is no such network.
    """
    if name not in static_names():
        raise UsageError(f"unknown network {name!r}; `scaleport inspect --models` lists them")
    with tempfile.TemporaryDirectory(prefix="scaleport-") as folder:
        target = Path(folder) / "bundle"
        shape = (0, 0)
        refusal = ""
        try:
            try:
                manifest, shape = _exported(name, Path(folder), target, (_FIXED,))
            except ExportError as error:  # try the others without it
                refusal = str(error)
                manifest, shape = _exported(name, Path(folder), target, ())
        except UnsupportedOpError as error:
            cells = every(Cell(status="n/a", reason=str(error)))
        except ScaleportError as error:
            cells = every(Cell(status="fail", reason=str(error)))
        else:
            results, reasons = compared(target, {backend for backend, _ in columns()})
            if refusal:
                reasons[_FIXED] = refusal
            cells = {f"{b}/{p}": cell_of(manifest, b, p, results, reasons) for b, p in columns()}
    return StaticRow(name=name, source=source_hash(name), shape=shape, cells=cells)


def _exported(
    name: str, folder: Path, target: Path, more: tuple[str, ...]
) -> tuple[Manifest, tuple[int, int]]:
    """A bundle of the smallest of some shapes that the network can have.

    Args:
        name: of the network.
        folder: where its checkpoint may be written.
        target: the bundle.
        more: formats beside the usual ones.

    Raises:
        ScaleportError: if it cannot be exported.
    """
    shipped = shipped_weights()
    formats = (*ExportOptions().formats, *more)
    if name in shipped:
        options = ExportOptions(formats, static=StaticShape(*SHIPPED_SHAPE))
        return export_bundle(shipped[name], target, options), SHIPPED_SHAPE
    network = random_network(name)
    checkpoint = folder / f"{name}.safetensors"
    save_checkpoint(network, checkpoint, {})
    step, natives = network.encoder.tile_step, network.upsampler.native_scales
    freeze = natives[:1] if len(natives) > 1 else None
    for place, side in enumerate(_SIDES):
        height = -(-side // step) * step
        shape = (height, height + max(8, step))
        static = StaticShape(*shape)
        try:
            options = ExportOptions(formats, freeze_scales=freeze, static=static)
            return export_bundle(checkpoint, target, options), shape
        except UsageError:  # too small, which is known before a graph is made
            if place == len(_SIDES) - 1:
                raise
    raise AssertionError("there are sides to try")


def columns() -> Iterator[tuple[str, str]]:
    """Backend and precision of the cells of a row."""
    for backend in (*BACKENDS, _FIXED):
        for precision in PRECISIONS:
            yield backend, precision


def every(cell: Cell) -> dict[str, Cell]:
    """A row that says the same everywhere."""
    return {f"{backend}/{precision}": cell for backend, precision in columns()}


def read_static(path: Path) -> dict[str, StaticRow]:
    """Rows measured so far, by name; none if there is no file.

    Raises:
        ArtifactError: if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[StaticRow])
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{path} is damaged: {error}; delete it and measure anew") from error
    return {row.name: row for row in rows}


def write_static(path: Path, rows: dict[str, StaticRow]) -> None:
    """Keep rows, in the order of :func:`static_names`, complete or not at all.

    Raises:
        OutputError: if the file cannot be written.
    """
    ordered = [rows[name] for name in static_names() if name in rows]
    data: Any = msgspec.json.format(msgspec.json.encode(ordered), indent=1)
    write_bytes(path, data + b"\n")
