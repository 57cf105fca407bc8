"""Outputs made on one machine and judged on another.

A Mac or a Jetson runs the parity grid and keeps what comes out; a machine with PyTorch compares it
with the reference. Neither side believes the other: the checkpoint, the graphs, every input and
every output are matched by their hashes. The files are plain ``.npy`` arrays and one JSON index;
nothing of them is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from scaleport import __version__
from scaleport.bundle.digest import sha256_file
from scaleport.bundle.manifest import (
    CHECKPOINT_NAME,
    InferencePrecision,
    Name,
    Parity,
    ParityResult,
    Sha256,
    Text,
)
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ArtifactError, OutputError, UsageError
from scaleport.extras import needs
from scaleport.grid import Grid
from scaleport.progress import Progress, silent
from scaleport.runtimes.base import precision_text, source_format
from scaleport.runtimes.registry import get_backend
from scaleport.runtimes.upscaler import load
from scaleport.validation.parity.cases import Case, Mode, Selection, Shape
from scaleport.validation.parity.combinations import Combination, combinations_of, plan_of
from scaleport.validation.parity.gates import Gates, judge
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import (
    actions,
    device_of,
    measure,
    one_line,
    refusals,
    store,
)
from scaleport.validation.pictures import pictures
from scaleport.validation.report.summary import scale_text

if TYPE_CHECKING:
    from scaleport.validation.parity.reference import Reference

Array = npt.NDArray[Any]

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


def save_outputs(
    bundle: Path | str,
    folder: Path,
    options: ValidationOptions | None = None,
    progress: Progress | None = None,
) -> Index:
    """Run the parity grid and keep the outputs. Needs no torch, and judges nothing.

    Args:
        bundle: the bundle directory.
        folder: the folder to be; it may be there if it is empty. It appears when complete.
        options: which cases are run; gates are not looked at.
        progress: told of each case that is done.

    Raises:
        UsageError: if a name is unknown, or there are no such graphs.
        BackendError: if nothing can run here.
        ArtifactError: if the bundle is damaged.
        OutputError: if the folder cannot be written, or holds something.
    """
    options, progress = options or ValidationOptions(), progress or silent
    opened = open_bundle(Path(bundle))
    combinations, left_out = combinations_of(
        opened,
        options.backends,
        options.precisions,
        options.selection,
        options.inference_precision,
    )
    _check_folder(folder)
    total = sum(c.count for c in combinations)
    scratch = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        scratch.mkdir()  # by the umask; tempfile makes folders for their owner only
        runs: list[SavedRun] = []
        done = 0
        for combination in combinations:
            run = _save_run(opened, combination, scratch, options.threads, done, total, progress)
            done += combination.count
            runs.append(run)
        index = Index(
            format=FORMAT,
            model=opened.manifest.name,
            checkpoint_sha256=_checkpoint(opened),
            selection=options.selection,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            scaleport=__version__,
            runs=tuple(runs),
            left_out=left_out,
        )
        encoded = msgspec.json.format(msgspec.json.encode(index), indent=1)
        (scratch / INDEX).write_bytes(encoded + b"\n")
        if folder.is_dir():
            folder.rmdir()
        scratch.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return index


def _check_folder(folder: Path) -> None:
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise OutputError(f"{folder} is not empty; choose another folder for the outputs")
        elif folder.exists():
            raise OutputError(f"{folder} is a file; choose another folder for the outputs")
        elif not folder.absolute().parent.is_dir():
            raise OutputError(f"cannot write {folder}: there is no directory {folder.parent}")
        if not os.access(folder.absolute().parent, os.W_OK):
            raise OutputError(f"cannot write {folder}: its directory is read-only")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error


def _save_run(
    bundle: Bundle,
    combination: Combination,
    scratch: Path,
    threads: int,
    done: int,
    total: int,
    progress: Progress,
) -> SavedRun:
    name, precision = combination.backend, combination.precision
    arithmetic = combination.inference_precision
    upscaler = load(bundle, name, precision, threads=threads, inference_precision=arithmetic)
    cases = []
    for case, action in actions(upscaler, combination, _images):
        file, digest, note = None, None, ""
        try:
            found = np.ascontiguousarray(action(), np.float32)
        except ArtifactError:
            raise
        except Exception as error:
            note = one_line(error)
        else:
            file = f"{done:06d}.npy"
            np.save(scratch / file, found, allow_pickle=False)
            digest = sha256_file(scratch / file).sha256
        cases.append(_saved(case, file, digest, note))
        done += 1
        progress(done, total, combination.title)
    return SavedRun(
        backend=name,
        precision=precision,
        inference_precision=arithmetic,
        device=device_of(upscaler),
        version=upscaler.stages.found.version,
        graphs=_graph_hashes(bundle, name, precision),
        cases=tuple(cases),
        refused=tuple(refusals(upscaler, combination)),
    )


def _saved(case: Case, file: str | None, digest: str | None, note: str) -> Saved:
    shape = case.shape
    return Saved(
        mode=case.mode,
        shape_name=shape.name,
        shape=(shape.height, shape.width),
        batch=shape.batch,
        scale=case.scale,
        input_sha256=_hash(_images(shape)),
        file=file,
        output_sha256=digest,
        note=note,
    )


def _images(shape: Shape) -> Array:
    return pictures(shape.height, shape.width, shape.batch)


def _hash(array: Array) -> str:
    head = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _checkpoint(bundle: Bundle) -> str:
    entry = bundle.manifest.files.get(CHECKPOINT_NAME)
    if entry is None:
        raise ArtifactError(f"{bundle.path} carries no checkpoint to match outputs by")
    return entry.sha256


def _graph_hashes(bundle: Bundle, backend: str, precision: str) -> dict[str, str]:
    """Hashes of the graphs that a backend runs.

    Engines are built anew for every machine, so they stand for the ONNX graphs they come from.
    """
    form = source_format(get_backend(backend))
    return {
        name: entry.sha256
        for name, entry in sorted(bundle.manifest.files.items())
        if name.startswith(f"{form}/{precision}/")
    }


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


def judge_outputs(
    bundle: Path | str | Bundle,
    folder: Path,
    options: ValidationOptions | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare saved outputs with the reference.

    Args:
        bundle: the bundle that they were made with.
        folder: what :func:`save_outputs` wrote.
        options: gates, threads and whether to store the results; all saved cases are judged.
        progress: told of each case that is done.

    Returns:
        Results as :func:`scaleport.validation.parity.proof.validate` gives them.

    Raises:
        UsageError: if there is no such folder.
        ArtifactError: if it belongs to another checkpoint or other graphs, if an input or output
            is not the one that was hashed, or if cases are missing.
    """
    options, progress = options or ValidationOptions(), progress or silent
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    index = read_index(folder)
    _match(opened, index, folder)
    with needs("torch", "the reference of validate"):
        from scaleport.validation.parity.reference import Reference

    reference = Reference(opened, options.threads)
    total = sum(len(run.cases) + len(run.refused) for run in index.runs)
    results: list[ParityResult] = []
    device = dict(index.left_out)
    versions = {"scaleport": index.scaleport, **reference.versions}
    for run in index.runs:
        versions[run.backend] = run.version
        device[run.backend] = f"{run.device} ({index.system}, saved outputs)"
        for saved in run.cases:
            results.append(judge(_judged(run, saved, folder, reference), options.gates))
            progress(len(results), total, _title(run))
        results += run.refused
    limits = options.gates.limits(run.inference_precision for run in index.runs)
    parity = Parity(gates=limits, device=device, tool_versions=versions, results=tuple(results))
    if options.store:
        store(opened, opened.manifest, parity, options.gates, void_signature=True)
    return parity


def _match(bundle: Bundle, index: Index, folder: Path) -> None:
    if index.checkpoint_sha256 != _checkpoint(bundle):
        raise ArtifactError(
            f"{folder} holds outputs of {index.model}, checkpoint {index.checkpoint_sha256[:12]}; "
            f"{bundle.path} is {bundle.manifest.name}, checkpoint {_checkpoint(bundle)[:12]}"
        )
    for run in index.runs:
        name = _title(run)
        Gates().of(run.precision, run.inference_precision)
        here = _graph_hashes(bundle, run.backend, run.precision)
        for path in sorted(set(here) | set(run.graphs)):
            if here.get(path) != run.graphs.get(path):
                raise ArtifactError(f"{folder}: {name} ran another {path} than {bundle.path} holds")
        planned = {_key(_saved(c, None, None, "")) for c in plan_of(bundle, run, index.selection)}
        there = [_key(saved) for saved in run.cases]
        if len(set(there)) != len(there) or set(there) != planned:
            odd = sorted(planned ^ set(there)) or ["a case twice"]
            raise ArtifactError(f"{folder}: {name} has not the cases of the grid: {odd[0]}")


def _title(run: SavedRun) -> str:
    return f"{run.backend} {precision_text(run.precision, run.inference_precision)}"


def _key(saved: Saved) -> str:
    height, width = saved.shape
    return (
        f"{saved.mode} {saved.shape_name} {saved.batch}x{height}x{width} {scale_text(saved.scale)}"
    )


def _judged(run: SavedRun, saved: Saved, folder: Path, reference: Reference) -> ParityResult:
    shape = Shape(saved.shape_name, *saved.shape, saved.batch)
    case = Case(shape, saved.scale, saved.mode)
    name = f"{_title(run)} {_key(saved)}"
    if saved.input_sha256 != _hash(reference.image(shape)):
        raise ArtifactError(f"{folder}: the input of {name} is not the one of this version")
    expected = reference.output(shape, saved.scale)
    found = None
    if saved.file is not None:
        found = _read(folder / saved.file, saved, name)
    elif not saved.note:
        raise ArtifactError(f"{folder}: {name} has neither an output nor a reason")
    return measure(run, case, found, expected, saved.note)


def _read(path: Path, saved: Saved, name: str) -> Array:
    """One output; its size is known before any of it is read."""
    try:
        # Another size than the grid's is a fault of the backend and judged as one, if it is small.
        height, width = Grid.from_scale(*saved.shape, saved.scale).output_size
        limit = 4 * 4 * saved.batch * 3 * (height + 64) * (width + 64)
        if path.is_symlink() or path.stat().st_size > limit:
            raise ArtifactError(f"{path}, output of {name}, is no file of a fitting size")
        if sha256_file(path).sha256 != saved.output_sha256:
            raise ArtifactError(f"{path}, output of {name}, does not match its hash")
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"{path}, output of {name}, cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise ArtifactError(f"{path}, output of {name}, is not a float32 array")
    return array
