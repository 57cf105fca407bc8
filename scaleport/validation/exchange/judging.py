"""Judging outputs that another machine made.

Neither side believes the other: the checkpoint, the graphs, every input and every output are
matched by their hashes, and nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ArtifactError
from scaleport.extras import needs
from scaleport.grid import Grid
from scaleport.progress import Progress, silent
from scaleport.validation.exchange.format import (
    Index,
    Saved,
    SavedRun,
    checkpoint_hash,
    graph_hashes,
    hash_of,
    key_of,
    read_index,
    saved_case,
    title_of,
)
from scaleport.validation.parity.cases import Case, Shape
from scaleport.validation.parity.combinations import plan_of
from scaleport.validation.parity.gates import Gates, judge
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import measure, store

if TYPE_CHECKING:
    from scaleport.validation.parity.reference import Reference


def judge_outputs(
    bundle: Path | str | Bundle,
    folder: Path,
    options: ValidationOptions | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare saved outputs with the reference.

    Args:
        bundle: the bundle that they were made with.
        folder: what :func:`scaleport.validation.exchange.saving.save_outputs` wrote.
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
            progress(len(results), total, title_of(run))
        results += run.refused
    limits = options.gates.limits(run.inference_precision for run in index.runs)
    parity = Parity(gates=limits, device=device, tool_versions=versions, results=tuple(results))
    if options.store:
        store(opened, opened.manifest, parity, options.gates, void_signature=True)
    return parity


def _match(bundle: Bundle, index: Index, folder: Path) -> None:
    if index.checkpoint_sha256 != checkpoint_hash(bundle):
        raise ArtifactError(
            f"{folder} holds outputs of {index.model}, checkpoint {index.checkpoint_sha256[:12]}; "
            f"{bundle.path} is {bundle.manifest.name}, checkpoint {checkpoint_hash(bundle)[:12]}"
        )
    for run in index.runs:
        name = title_of(run)
        Gates().of(run.precision, run.inference_precision)
        here = graph_hashes(bundle, run.backend, run.precision)
        for path in sorted(set(here) | set(run.graphs)):
            if here.get(path) != run.graphs.get(path):
                raise ArtifactError(f"{folder}: {name} ran another {path} than {bundle.path} holds")
        planned = {key_of(saved_case(c)) for c in plan_of(bundle, run, index.selection)}
        there = [key_of(saved) for saved in run.cases]
        if len(set(there)) != len(there) or set(there) != planned:
            odd = sorted(planned ^ set(there)) or ["a case twice"]
            raise ArtifactError(f"{folder}: {name} has not the cases of the grid: {odd[0]}")


def _judged(run: SavedRun, saved: Saved, folder: Path, reference: Reference) -> ParityResult:
    shape = Shape(saved.shape_name, *saved.shape, saved.batch)
    case = Case(shape, saved.scale, saved.mode)
    name = f"{title_of(run)} {key_of(saved)}"
    if saved.input_sha256 != hash_of(reference.image(shape)):
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
