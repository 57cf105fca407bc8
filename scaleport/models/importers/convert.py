"""From published weights to a checkpoint of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaleport.errors import OutputError, UsageError
from scaleport.models import importers
from scaleport.models.checkpoint import save_checkpoint
from scaleport.models.importers.layouts import Imported
from scaleport.paths import address_problem, holds, make_folder, remove_empty, similar_name
from scaleport.shipped import CHECKPOINT_SUFFIX


@dataclass(frozen=True)
class ImportOptions:
    """How weights are read.

    Attributes:
        scales: integer scales that an IGConv was trained on; None for those that were published.
        settings: what the file does not say, by ``PART.OPTION``: any option of ``encoder``,
            ``upsampler``, ``normalisation`` or ``scale``, such as ``encoder.residual_scale``.
        spandrel: take any network of one scale that the package spandrel knows.
        overwrite: whether an existing checkpoint may be replaced.
    """

    scales: Sequence[int] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    spandrel: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Conversion:
    """What was written: the checkpoint, and what its file was recognised as."""

    checkpoint: Path
    found: Imported


def place_of(source: Path, target: Path | str | None) -> Path:
    """Where the checkpoint of some weights is written: as asked, or under their name here.

    Raises:
        UsageError: if there are no such weights.
        OutputError: if it is not called as checkpoints are.
    """
    if not holds(source.is_file):
        problem = address_problem(source)
        raise UsageError(problem or f"there is no file {source}{similar_name(source)}")
    place = Path(f"{source.stem}{CHECKPOINT_SUFFIX}") if target is None else Path(target)
    if place.suffix != CHECKPOINT_SUFFIX:
        raise OutputError(f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}; got {place}")
    return place


def import_weights(
    source: Path | str, target: Path | str | None = None, options: ImportOptions | None = None
) -> Conversion:
    """Convert published PyTorch weights to a checkpoint that carries its own configuration.

    The network is recognised by the names and shapes of its weights; no code of the file is run.

    Args:
        source: ``.pth``, ``.pt`` or ``.safetensors``, as its authors published it.
        target: the checkpoint to be; the file's name with the suffix ``.safetensors`` in the
            current folder if left out.
        options: how the weights are read.

    Raises:
        UsageError: if there is no such file, or an option does not fit the weights.
        ArtifactError: if the file is damaged or of no known layout.
        OutputError: if the checkpoint is there already and may not be replaced, or cannot be
            written.
    """
    options, source = options or ImportOptions(), Path(source)
    place = place_of(source, target)
    if not options.overwrite and holds(place.exists):
        raise OutputError(f"{place} exists; choose another name, or have it replaced")
    made = make_folder(place.parent)
    try:
        found = importers.import_file(source, options.scales, options.spandrel, options.settings)
        save_checkpoint(found.network, place, {"imported_from": source.name, **found.info()})
    finally:
        remove_empty(made)
    return Conversion(place, found)
