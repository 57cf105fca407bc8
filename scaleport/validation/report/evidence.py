"""What a report shows beside numbers: pictures of the worst cases, and how long a picture takes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import Parity, ParityResult
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ScaleportError
from scaleport.progress import Progress, Steps
from scaleport.runtimes.base import precision_text
from scaleport.runtimes.registry import get_backend
from scaleport.runtimes.upscaler import Upscaler, load
from scaleport.runtimes.view import View
from scaleport.validation.metrics import max_abs, psnr
from scaleport.validation.parity.cases import Shape, policy_of
from scaleport.validation.parity.combinations import run_of, whole_stage
from scaleport.validation.parity.proof import run_whole
from scaleport.validation.parity.reference import Reference
from scaleport.validation.report.page import Evidence, Picture
from scaleport.validation.report.raster import data_uri, error_map, to_pixels

SAMPLE: Final = Shape("sample", 60, 84)
"""The picture that every backend is shown and timed with."""
SAMPLE_SCALE: Final = 2.7
_REPEATS: Final = 3
# Output pixels that a crop shows, at most; the worst pixel is in it.
_CROP: Final = 96


def gather(
    bundle: Path | str | Bundle, parity: Parity, threads: int = 0, progress: Progress | None = None
) -> Evidence:
    """Render the sample and the worst case of every backend and precision again.

    Args:
        bundle: the bundle directory, or the bundle if it is open already.
        parity: its results; those of backends that cannot run here are left out.
        threads: processor threads; 0 leaves it to the backends.
        progress: told of each step, see :mod:`scaleport.progress`.

    Raises:
        ArtifactError: if the bundle or its checkpoint is damaged.
    """
    step = Steps(progress)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    reference = Reference(opened, threads)
    limits = opened.manifest.scale
    scale = min(max(SAMPLE_SCALE, limits.min), limits.max)
    runs = list(dict.fromkeys(map(run_of, parity.results)))
    sample, worst, skipped = [], [], []
    for run in runs:
        backend, precision, other = run
        title = f"{backend} {precision_text(precision, other)}"
        step(f"pictures of {title}")
        results = [result for result in parity.results if run_of(result) == run]
        try:
            if not get_backend(backend).availability().usable:
                skipped.append(f"{title}: it cannot run here")
                continue
            upscaler = load(opened, backend, precision, threads=threads, inference_precision=other)
            sample.append(_sample(upscaler, reference, scale))
            case = worst_case(results)
            if case is not None:
                worst.append(_again(opened, upscaler, reference, case))
        except ScaleportError as error:
            skipped.append(f"{title}: {error}")
    text = f"{SAMPLE.width}x{SAMPLE.height} pixels at x{scale:g}"
    return Evidence(tuple(sample), tuple(worst), tuple(skipped), text, _load_average())


def worst_case(results: Sequence[ParityResult]) -> ParityResult | None:
    """The measured case with the least PSNR, failed ones first; None if none was measured."""
    measured = [r for r in results if r.max_abs is not None]
    return min(
        measured, key=lambda r: (r.passed, np.inf if r.psnr is None else r.psnr), default=None
    )


def _sample(upscaler: Upscaler, reference: Reference, scale: float) -> Picture:
    image = reference.image(SAMPLE)
    expected = reference.output(SAMPLE, (scale, scale))
    found = upscaler(image, scale)
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        upscaler(image, scale)
        times.append(1e3 * (time.perf_counter() - start))
    return _picture(upscaler, image, found, expected, "sample", statistics.median(times))


def _again(bundle: Bundle, upscaler: Upscaler, reference: Reference, case: ParityResult) -> Picture:
    batch = 2 if case.shape_name == "pair" else 1
    shape = Shape(case.shape_name, *case.shape, batch)
    image = reference.image(shape)
    expected = reference.output(shape, case.scale)
    if case.mode == "whole":
        stage = whole_stage(bundle, upscaler.backend, upscaler.precision)
        found = run_whole(upscaler, stage, image, case.scale)
    else:
        found = View(upscaler.stages, image, policy_of(case.mode)).render(case.scale)
    y, x = case.scale
    scale = f"x{y:.4g}" if y == x else f"x({y:.4g}, {x:.4g})"
    words = f"{case.mode}, {case.shape_name} {case.shape[0]}x{case.shape[1]}, {scale}"
    return _picture(upscaler, image, found, expected, words, None)


def _picture(
    upscaler: Upscaler,
    image: Array,
    found: Array,
    expected: Array,
    case: str,
    milliseconds: float | None,
) -> Picture:
    note = ""
    worst: float | None = None
    ratio: float | None = None
    if found.shape != expected.shape:
        note = f"its size is {found.shape[2:]}, {expected.shape[2:]} is expected"
        error = np.zeros((1, 1, 3), np.uint8)
    else:
        worst, ratio = max_abs(found, expected), psnr(found, expected)
        image, found, expected = _worst_of(image, found, expected)
        rows, cols = _around(np.abs(found[0] - expected[0]).max(axis=0))
        height, width = image.shape[2:]
        y, x = found.shape[2] / height, found.shape[3] / width
        image = image[
            :,
            :,
            int(rows.start / y) : int(np.ceil(rows.stop / y)),
            int(cols.start / x) : int(np.ceil(cols.stop / x)),
        ]
        found, expected = found[:, :, rows, cols], expected[:, :, rows, cols]
        error = error_map(found, expected)
    return Picture(
        backend=upscaler.backend,
        precision=precision_text(upscaler.precision, upscaler.inference_precision),
        case=case,
        input=data_uri(to_pixels(image)),
        reference=data_uri(to_pixels(expected)),
        output=data_uri(to_pixels(found)),
        error=data_uri(error),
        max_abs=worst if worst is not None and np.isfinite(worst) else None,
        psnr=ratio if ratio is not None and np.isfinite(ratio) else None,
        milliseconds=milliseconds,
        device=upscaler.device,
        note=note,
    )


def _worst_of(image: Array, found: Array, expected: Array) -> tuple[Array, Array, Array]:
    """Of a batch, the image with the worst pixel."""
    error = np.nan_to_num(np.abs(found - expected), nan=np.inf).reshape(len(found), -1)
    at = int(np.argmax(error.max(axis=1)))
    return image[at : at + 1], found[at : at + 1], expected[at : at + 1]


def _around(error: Array) -> tuple[slice, slice]:
    """A crop with the worst pixel in its middle, as far as the image goes."""
    spans = []
    place = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
    for at, length in zip(place, error.shape, strict=True):
        start = max(0, min(int(at) - _CROP // 2, length - _CROP))
        spans.append(slice(start, min(length, start + _CROP)))
    return spans[0], spans[1]


def _load_average() -> str:
    try:
        return f"{os.getloadavg()[0]:.1f} over {os.cpu_count()} processors"
    except (AttributeError, OSError):
        return ""
