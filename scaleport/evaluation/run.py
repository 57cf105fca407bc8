"""Scoring: every set, every scale, every subject."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleport.atomic import atomic_path
from scaleport.errors import UsageError
from scaleport.evaluation.degrade import Degradation
from scaleport.evaluation.metrics import Metric
from scaleport.evaluation.protocols import Pixels, Protocol
from scaleport.evaluation.subjects import Subject
from scaleport.imaging.folders import KNOWN, images_in
from scaleport.imaging.pairs import read_colours

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ImageSet:
    """The images of one folder, sorted by name."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Score:
    """Means over the images of one set at one scale.

    Attributes:
        images: name of the set.
        count: how many images it has.
        scale: the scale.
        subject: name of what was scored.
        values: means by the name of the metric.
    """

    images: str
    count: int
    scale: float
    subject: str
    values: dict[str, float]


def find_sets(folder: Path, names: Sequence[str] = (), every: int = 1) -> list[ImageSet]:
    """The image sets of a folder: itself, if it holds images, or those of its folders that do.

    Args:
        folder: where to look.
        names: only these of its folders.
        every: only every so many images of each, beginning with the first.

    Raises:
        UsageError: if there is no image, or no folder of a name.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    own = images_in(folder)
    if own and not names:
        return [ImageSet(folder.resolve().name, own[::every])]
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    sets = [ImageSet(path.name, files[::every]) for path in below if (files := images_in(path))]
    if not sets:
        raise UsageError(f"no images in {folder}; known: {KNOWN}")
    by_name = {found.name: found for found in sets}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(f"no set {', '.join(missing)} in {folder}; there: {', '.join(by_name)}")
    return [by_name[name] for name in names] if names else sets


def score(
    sets: Sequence[ImageSet],
    scales: Sequence[float],
    subjects: Sequence[Subject],
    protocol: Protocol,
    metrics: Sequence[Metric],
    progress: Progress | None = None,
    degradation: Degradation | None = None,
) -> list[Score]:
    """Score subjects at those scales that they support.

    Args:
        sets: images.
        scales: scales, at least 1.
        subjects: what to score.
        protocol: how to score.
        metrics: what to measure.
        progress: called with (images done, images in all, what is being done).
        degradation: what LR goes through before it is upscaled.

    Raises:
        ImageError: if an image cannot be decoded or is too small.
        BackendError: if a backend fails.
    """
    total, done = len(scales) * sum(len(images.files) for images in sets), 0
    scores = []
    for images in sets:
        for scale in scales:
            able = [s for s in subjects if s.scales[0] <= scale <= s.scales[1]]
            values: dict[str, list[list[float]]] = {s.name: [] for s in able}
            for path in images.files:
                if progress is not None:
                    progress(done, total, f"{images.name} x{scale:g}, {path.name}")
                lr, hr = protocol.pair(protocol.taken(read_colours(path)), scale)
                if degradation is not None:
                    lr = degradation(lr, path.name)
                for subject in able:
                    result = subject.render(lr, *hr.shape[:2])
                    row = [_measured(metric, protocol, result, hr, scale) for metric in metrics]
                    values[subject.name].append(row)
                done += 1
            for subject in able:
                means = np.mean(values[subject.name], axis=0).tolist()
                named = {m.name: value for m, value in zip(metrics, means, strict=True)}
                scores.append(Score(images.name, len(images.files), scale, subject.name, named))
    return scores


def _measured(
    metric: Metric, protocol: Protocol, result: object, hr: Pixels, scale: float
) -> float:
    planes = [np.asarray(image, np.float64) for image in (result, hr)]
    if metric.needs_rgb:
        border = protocol.border(scale)
        inner = [p[border : p.shape[0] - border, border : p.shape[1] - border] for p in planes]
        rgb = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in inner]
        return metric.measure(*(np.clip(p, 0, 255) for p in rgb))
    return metric.measure(*(protocol.compared(image, scale) for image in planes))


def write_csv(path: Path, scores: Sequence[Score], metrics: Sequence[Metric]) -> None:
    """Write one line per score, all of them or no file.

    Raises:
        OutputError: if the file cannot be written.
    """
    names = [metric.name for metric in metrics]
    with atomic_path(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "images", "scale", "method", *names])
        for row in scores:
            numbers = [f"{row.values[name]:.6g}" for name in names]
            writer.writerow([row.images, row.count, f"{row.scale:g}", row.subject, *numbers])
