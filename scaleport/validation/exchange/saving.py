"""Running the parity grid on one machine and keeping the outputs. Needs no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import numpy as np

from scaleport import __version__
from scaleport.atomic import atomic_folder
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ArtifactError, OutputError
from scaleport.progress import Progress, silent
from scaleport.runtimes.upscaler import load
from scaleport.validation.exchange.format import (
    FORMAT,
    INDEX,
    Index,
    SavedRun,
    checkpoint_hash,
    graph_hashes,
    input_images,
    saved_case,
)
from scaleport.validation.parity.combinations import Combination, combinations_of
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import actions, device_of, note_of, refusals


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
    runs: list[SavedRun] = []
    done = 0
    with atomic_folder(folder) as scratch:
        for combination in combinations:
            run = _save_run(opened, combination, scratch, options.threads, done, total, progress)
            done += combination.count
            runs.append(run)
        index = Index(
            format=FORMAT,
            model=opened.manifest.name,
            checkpoint_sha256=checkpoint_hash(opened),
            selection=options.selection,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            scaleport=__version__,
            runs=tuple(runs),
            left_out=left_out,
        )
        encoded = msgspec.json.format(msgspec.json.encode(index), indent=1)
        (scratch / INDEX).write_bytes(encoded + b"\n")
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
    for case, action in actions(upscaler, combination, input_images):
        file, digest, note = None, None, ""
        try:
            found = np.ascontiguousarray(action(), np.float32)
        except ArtifactError:
            raise
        except Exception as error:
            note = note_of(error)
        else:
            file = f"{done:06d}.npy"
            np.save(scratch / file, found, allow_pickle=False)
            digest = sha256_file(scratch / file).sha256
        cases.append(saved_case(case, file, digest, note))
        done += 1
        progress(done, total, combination.title)
    return SavedRun(
        backend=name,
        precision=precision,
        inference_precision=arithmetic,
        device=device_of(upscaler),
        version=upscaler.stages.found.version,
        graphs=graph_hashes(bundle, name, precision),
        cases=tuple(cases),
        refused=tuple(refusals(upscaler, combination)),
    )
