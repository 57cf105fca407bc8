"""The files of saved outputs: plain ``.npy`` arrays and one JSON index, matched by hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import (
    CHECKPOINT_NAME,
    InferencePrecision,
    ParityResult,
    Sha256,
    Text,
)
from scaleport.bundle.reader import Bundle
from scaleport.errors import ArtifactError, UsageError
from scaleport.runtimes.base import precision_text, source_format
from scaleport.runtimes.registry import get_backend
from scaleport.tensor import Name
from scaleport.validation.parity.cases import Case, Mode, Selection, Shape
from scaleport.validation.pictures import pictures
from scaleport.validation.report.summary import scale_text

INDEX: Final = "outputs.json"
FORMAT: Final = 1
_MAX_INDEX_BYTES: Final = 64 << 20
_MAX_CASES: Final = 100_000

Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class Saved(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One case: what went in, by its hash, and the file of what came out, or why there is none."""

    mode: Mode
    shape_name: Name
    shape: tuple[Side, Side]
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)]
    scale: tuple[float, float]
    input_sha256: Sha256
    file: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}\.npy\Z")] | None
    output_sha256: Sha256 | None
    note: Text = ""


class SavedRun(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All cases of one backend and precision, and the hashes of the graphs that ran."""

    backend: Name
    precision: Name
    inference_precision: InferencePrecision = ""
    device: Text
    version: Text
    graphs: dict[str, Sha256]
    cases: Annotated[tuple[Saved, ...], msgspec.Meta(max_length=_MAX_CASES)]
    refused: Annotated[tuple[ParityResult, ...], msgspec.Meta(max_length=1024)]


class Index(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a folder of outputs holds."""

    format: int
    model: Name
    checkpoint_sha256: Sha256
    selection: Selection
    system: Text
    scaleport: Text
    runs: Annotated[tuple[SavedRun, ...], msgspec.Meta(max_length=64)]
    left_out: dict[str, Text]


def saved_case(
    case: Case, file: str | None = None, digest: str | None = None, note: str = ""
) -> Saved:
    """A case of the grid with the file of its output, its hash, or why there is none."""
    shape = case.shape
    return Saved(
        mode=case.mode,
        shape_name=shape.name,
        shape=(shape.height, shape.width),
        batch=shape.batch,
        scale=case.scale,
        input_sha256=hash_of(input_images(shape)),
        file=file,
        output_sha256=digest,
        note=note,
    )


def input_images(shape: Shape) -> Array:
    """The images of a shape: float32[N, 3, H, W]."""
    return pictures(shape.height, shape.width, shape.batch)


def hash_of(array: Array) -> str:
    """SHA-256 of an array: of its type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def checkpoint_hash(bundle: Bundle) -> str:
    """Hash of the checkpoint that a bundle carries.

    Raises:
        ArtifactError: if it carries none.
    """
    entry = bundle.manifest.files.get(CHECKPOINT_NAME)
    if entry is None:
        raise ArtifactError(f"{bundle.path} carries no checkpoint to match outputs by")
    return entry.sha256


def graph_hashes(bundle: Bundle, backend: str, precision: str) -> dict[str, str]:
    """Hashes of the graphs that a backend runs.

    Engines are built anew for every machine, so they stand for the ONNX graphs they come from.
    """
    form = source_format(get_backend(backend))
    return {
        name: entry.sha256
        for name, entry in sorted(bundle.manifest.files.items())
        if name.startswith(f"{form}/{precision}/")
    }


def title_of(run: SavedRun) -> str:
    """Backend and precision of a run, for people."""
    return f"{run.backend} {precision_text(run.precision, run.inference_precision)}"


def key_of(saved: Saved) -> str:
    """What tells a case from the others of its run, in words."""
    height, width = saved.shape
    return (
        f"{saved.mode} {saved.shape_name} {saved.batch}x{height}x{width} {scale_text(saved.scale)}"
    )


def read_index(folder: Path) -> Index:
    """Read what a folder of outputs holds, without believing it.

    Raises:
        UsageError: if there is no such folder.
        ArtifactError: if its index is damaged, too large, or of another version.
    """
    path = folder / INDEX
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ArtifactError(f"{path} is larger than {_MAX_INDEX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{folder} holds no saved outputs: {path.name} cannot be read") from error
    try:
        index = msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
    if index.format != FORMAT:
        raise ArtifactError(f"{path} is of format {index.format}, this version reads {FORMAT}")
    return index
