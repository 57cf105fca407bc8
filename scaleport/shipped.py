"""The checkpoints that come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from scaleport.errors import UsageError, did_you_mean
from scaleport.paths import address_problem, holds, similar_name

FOREIGN_SUFFIXES: Final = (".pth", ".pt", ".ckpt", ".bin")
"""What published PyTorch weights are usually called."""
CHECKPOINT_SUFFIX = ".safetensors"
BUNDLE_SUFFIX: Final = ".bundle"
MODEL_FILE, LATEST_FILE = f"model{CHECKPOINT_SUFFIX}", f"latest{CHECKPOINT_SUFFIX}"
"""What every training run calls its checkpoints."""


LICENSE: Final = "Apache-2.0"
"""Licence of the checkpoints in the package, as an SPDX identifier; their cards say the same."""


def license_of(checkpoint: Path, info: object) -> str:
    """The licence of a checkpoint, as far as it is known; empty if not.

    Args:
        checkpoint: the file; one that lies in the package has the package's licence.
        info: what its maker wrote into it; a text under ``license`` wins.
    """
    said = info.get("license") if isinstance(info, dict) else None
    if isinstance(said, str) and said.strip():
        return said.strip()
    mine = {path.resolve() for path in shipped_weights().values()}
    return LICENSE if checkpoint.resolve() in mine else ""


def shipped_weights() -> dict[str, Path]:
    """Paths of the checkpoints in the package, by name, sorted."""
    folder = Path(str(files("scaleport"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob(f"*{CHECKPOINT_SUFFIX}"))}


def checkpoint_name(path: Path) -> str:
    """The name of a checkpoint: its file's, or its folder's, as every run uses one file name.

    ``run/model.safetensors``, which training writes, is ``run``; so is the copy in ``run.bundle``.
    """
    folder = path.resolve().parent
    if path.stem not in (Path(MODEL_FILE).stem, Path(LATEST_FILE).stem) or not folder.name:
        return path.stem
    return folder.stem if folder.suffix == BUNDLE_SUFFIX else folder.name


def find_checkpoint(given: str) -> Path:
    """A checkpoint file: a path, or the name of a shipped one.

    A file of that name wins over a shipped checkpoint.

    Raises:
        UsageError: if there is neither; the message lists the shipped names.
    """
    path = Path(given)
    try:
        if path.is_file():
            return path
        is_directory = path.is_dir()
    except OSError as error:
        raise UsageError(f"cannot read {given}: {error.strerror or error}") from error
    shipped = shipped_weights()
    if given in shipped:
        return shipped[given]
    problem = address_problem(given)
    if problem:
        raise UsageError(problem)
    if is_directory:
        inside = path / MODEL_FILE
        hint = f"; the one in it is {inside}" if holds(inside.is_file) else ""
        raise UsageError(
            f"{given} is a directory; a checkpoint is a {CHECKPOINT_SUFFIX} file{hint}"
        )
    names = ", ".join(shipped) or "none"
    hint = did_you_mean(given, shipped) or similar_name(path)
    raise UsageError(f"there is no checkpoint {given}{hint}; shipped with the package: {names}")


def export_hint(given: Path) -> str:
    """What an error adds where another file was named and a bundle is needed; else nothing."""
    if given.suffix == CHECKPOINT_SUFFIX or str(given) in shipped_weights():
        return f"; scaleport export {given} makes a bundle of that checkpoint"
    if given.suffix.lower() in FOREIGN_SUFFIXES:
        return f"; scaleport import {given} and scaleport export make one of it"
    if given.suffix.lower() in (".onnx", ".xml", ".mlpackage"):
        return "; give the bundle that the graph is from"
    return ""
