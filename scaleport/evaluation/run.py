"""Scoring: every set, every scale, every subject."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.aliases import Uint8Array
from scaleport.atomic import atomic_path
from scaleport.errors import UsageError
from scaleport.evaluation.degrade import Degradation, parse_degradation
from scaleport.evaluation.metrics import Metric, find_metrics
from scaleport.evaluation.protocols import Protocol, find_protocol
from scaleport.evaluation.subjects import Subject, bicubic, open_subject
from scaleport.imaging.folders import KNOWN, images_in
from scaleport.imaging.pairs import read_colours
from scaleport.progress import Progress, silent

LARGEST_SCALE: Final = 1000.0
"""Beyond it an LR image of one pixel would need a ground truth that no benchmark has."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a network is scored.

    Attributes:
        scales: scales, at least 1.
        protocol: name of :data:`scaleport.evaluation.protocols.PROTOCOLS`.
        metrics: names of :data:`scaleport.evaluation.metrics.METRICS`.
        sets: only these folders of the data; empty for all.
        degrade: degradations of LR, in this order, such as ``jpeg:75``.
        every: use every Nth image of a set.
        backend: backend that runs a bundle; empty for the first that can.
        precision: graphs of a bundle; empty for the first that it has.
        device: the backend's own name of a device; empty for its default.
        threads: processor threads; 0 leaves it to the backend.
    """

    scales: tuple[float, ...] = (2.0, 3.0, 4.0)
    protocol: str = "basicsr-y"
    metrics: tuple[str, ...] = ("psnr", "ssim")
    sets: tuple[str, ...] = ()
    degrade: tuple[str, ...] = ()
    every: int = 1
    backend: str = ""
    precision: str = ""
    device: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        wrong = [scale for scale in self.scales if not 1 <= scale <= LARGEST_SCALE]
        if wrong or not self.scales:
            raise UsageError(
                f"a scale to score at is a number from 1, got {wrong[0] if wrong else 'none'}"
            )
        if self.every < 1:
            raise UsageError(f"every must be at least 1, got {self.every}")


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
        subject: name of the network or method.
        values: means by the name of the metric.
    """

    images: str
    count: int
    scale: float
    subject: str
    values: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a network.

    Attributes:
        subject: what was scored: its name, backend, precision, device and range of scales.
        protocol: how it was scored.
        metrics: what was measured, in the order of the columns.
        degradation: how LR was degraded, in words.
        scores: one for each set, scale and method; bicubic is a method, and the only one at scales
            beyond the subject's range.
    """

    subject: Subject
    protocol: Protocol
    metrics: tuple[Metric, ...]
    degradation: tuple[str, ...]
    scores: tuple[Score, ...]


def evaluate(
    model: Path | str,
    data: Path | str,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on benchmark images, with bicubic beside it.

    LR is made from the ground truth as the protocol defines, and degraded if ``degrade`` says so.

    Args:
        model: a bundle, a checkpoint, or the name of a checkpoint that comes with the package.
        data: folder of ground-truth images, or of such folders.
        options: how to score.
        progress: told of each image, see :mod:`scaleport.progress`.

    Raises:
        UsageError: if a name is unknown, or there is no image.
        ArtifactError: if the bundle or checkpoint is damaged.
        BackendError: if the backend is missing, cannot run here, or fails.
        ImageError: if an image cannot be decoded or is too small.
    """
    options = options or EvaluationOptions()
    protocol = find_protocol(options.protocol)
    metrics = tuple(find_metrics(options.metrics))
    sets = find_sets(Path(data), options.sets, options.every)
    degradation = parse_degradation(options.degrade)
    subject = open_subject(
        str(model), options.backend, options.precision, options.threads, options.device
    )
    scores = score(
        sets,
        sorted(set(options.scales)),
        [bicubic(), subject],
        protocol,
        metrics,
        progress,
        degradation,
    )
    return Evaluation(subject, protocol, metrics, tuple(degradation.words()), tuple(scores))


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
        progress: told of each image, see :mod:`scaleport.progress`.
        degradation: what LR goes through before it is upscaled.

    Raises:
        ImageError: if an image cannot be decoded or is too small.
        BackendError: if a backend fails.
    """
    progress = progress or silent
    total, done = len(scales) * sum(len(images.files) for images in sets), 0
    scores = []
    for images in sets:
        for scale in scales:
            able = [s for s in subjects if s.scales[0] <= scale <= s.scales[1]]
            values: dict[str, list[list[float]]] = {s.name: [] for s in able}
            for path in images.files:
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
    metric: Metric, protocol: Protocol, result: object, hr: Uint8Array, scale: float
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
