"""What int8 costs on images with ground truth: PSNR of the float32 graphs minus that of int8.

Int8 is not judged by its distance from the reference, as fp32 and fp16 are, but by the quality that
it loses: what counts is the error that it adds to the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.bundle.manifest import Manifest, QuantisationLoss
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import BackendError, UsageError
from scaleport.imaging.folders import images_in
from scaleport.imaging.pairs import make_pair, read_colours
from scaleport.progress import Progress, silent
from scaleport.runtimes import registry
from scaleport.runtimes.upscaler import Upscaler, load
from scaleport.validation.metrics import psnr_y

SCALES: Final = (2.0, 2.7, 3.0, 4.0, 6.0)
"""Scales that losses are measured at, those of them that a model answers."""

MAX_LOSS: Final = 0.1
"""Gate in dB."""

_NO_ERROR: Final = 100.0


def judged_scales(manifest: Manifest) -> tuple[float, ...]:
    """The scales at which int8 is judged: the usual ones in the model's range, and its native ones.

    The ends of the range where none of them lies in it.
    """
    low, high = manifest.scale.min, manifest.scale.max
    found = {s for s in (*SCALES, *map(float, manifest.scale.native)) if low <= s <= high}
    return tuple(sorted(found or {low, high}))


def measure_losses(
    bundle: Path | str,
    folder: Path,
    backends: Sequence[str] | None = None,
    scales: Sequence[float] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[QuantisationLoss, ...]:
    """Measure the loss of a bundle's int8 graphs on all images of a folder.

    LR images are made from the ground truth as benchmarks make them; luma PSNR of 8-bit images,
    ``ceil(scale)`` pixels left out on each side, mean over the images. Gray files count as luma.

    Args:
        bundle: a bundle with fp32 and int8 graphs.
        folder: images, not searched recursively.
        backends: names; those that calibration measures on and that can run here when left out.
        scales: scales to judge at; :func:`judged_scales` when left out.
        threads: processor threads; 0 leaves it to the backends.
        progress: told of each image that is done.

    Raises:
        UsageError: if the folder holds no image, or the bundle no int8 or fp32 graphs.
        BackendError: if a backend cannot run here.
        ImageError: if a file is not an image.
    """
    progress = progress or silent
    files = images_in(folder) if folder.is_dir() else ()
    if not files:
        raise UsageError(f"{folder} holds no images to judge int8 by")
    opened = open_bundle(Path(bundle))
    backends = _judges(opened) if backends is None else backends
    if not backends:
        raise BackendError(f"{opened.path} holds no int8 graphs that can run here")
    scales = judged_scales(opened.manifest) if scales is None else scales
    total = len(backends) * len(scales) * len(files)
    found: list[QuantisationLoss] = []
    done = 0
    for backend in backends:
        pair = [load(opened, backend, p, threads=threads) for p in ("fp32", "int8")]
        for scale in scales:
            values = []
            for path in files:
                values.append([score(upscaler, path, scale) for upscaler in pair])
                done += 1
                progress(done, total, f"{backend} x{scale:g}")
            exact, small = (float(v) for v in np.mean(values, axis=0))
            found.append(QuantisationLoss(backend=backend, scale=scale, fp32=exact, int8=small))
    return tuple(found)


def _judges(bundle: Bundle) -> list[str]:
    """The backends that judge a bundle's int8 graphs here."""
    there = [b for b in registry.int8_judges() if "int8" in bundle.precisions(b.graph_format)]
    return [backend.name for backend in there if backend.availability().usable]


def score(upscaler: Upscaler, path: Path, scale: float) -> float:
    """Luma PSNR in dB of one image; 100 for an equal one, which has no finite value."""
    pair = make_pair(read_colours(path), scale)
    height, width = pair.hr.shape[:2]
    found = upscaler(pair.lr, size=(height, width))
    return min(psnr_y(found, pair.hr, math.ceil(scale)), _NO_ERROR)
