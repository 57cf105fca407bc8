"""From a checkpoint and a folder of images to a bundle with int8 graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scaleport.bundle.reader import Bundle
from scaleport.calibration.quantiser import CalibrationOptions, Quantiser
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.progress import Progress, Steps
from scaleport.runtimes.registry import int8_judges
from scaleport.shipped import checkpoint_name, find_checkpoint


def calibrate(
    checkpoint: Path | str,
    data: Path | str,
    target: Path | str | None = None,
    options: CalibrationOptions | None = None,
    export: ExportOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export a checkpoint with int8 graphs that lose no more than a budget.

    Layers are ranked by the loss that each causes alone; the worst stay float until the loss on
    held-out images is within the budget on every backend that can run here.
    ``manifest.quantisation`` of the bundle holds the measurements.

    Args:
        checkpoint: a checkpoint file, or the name of one that comes with the package.
        data: folder of images like those to be upscaled, searched recursively.
        target: the bundle directory to write; ``NAME.bundle`` in the current folder if left out.
        options: the budget, and how images are used.
        export: options of the export; int8 is added to its precisions. By default, the formats of
            the backends that judge int8.
        progress: told of each step, see :mod:`scaleport.progress`.

    Returns:
        The bundle, open.

    Raises:
        OverBudget: if no plan with enough int8 layers is within the budget; nothing is written.
        UsageError: if there is no such checkpoint or folder, it holds too few images or images of
            one colour only, or an option does not fit the model.
        ImageError: if an image is damaged.
        ArtifactError: if the checkpoint is damaged.
        ExportError: if the network cannot be exported, or has nothing to quantise.
        OutputError: if the bundle is there already and may not be replaced, or cannot be written.
    """
    source = find_checkpoint(str(checkpoint))
    place = Path(f"{checkpoint_name(source)}.bundle") if target is None else Path(target)
    judged = tuple(backend.graph_format for backend in int8_judges())
    export = export or ExportOptions(formats=judged)
    export = replace(export, precisions=tuple(dict.fromkeys((*export.precisions, "int8"))))
    Steps(progress)("hashing the images")
    quantiser = Quantiser(Path(data), options)
    return Bundle(place, export_bundle(source, place, export, progress, quantiser))
