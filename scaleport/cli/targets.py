"""Which files an upscale reads and writes, decided before any work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaleport.cli.paths import holds
from scaleport.errors import ImageError, OutputError, ScaleportError, UsageError
from scaleport.imaging.files import WRITABLE, check_target

READ_SUFFIXES = frozenset(WRITABLE) | {
    ".bmp",
    ".ppm",
    ".pgm",
    ".pnm",
    ".pfm",
    ".gif",
    ".heic",
    ".heif",
}
"""Files that are taken out of a folder; a file that is named itself may be called anything."""

DEFAULT_SUFFIX = ".png"


@dataclass(frozen=True)
class Job:
    """One image to upscale."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """All jobs, and the inputs that no job can be made of."""

    jobs: tuple[Job, ...]
    failures: tuple[tuple[Path, ScaleportError], ...]


def plan(inputs: Sequence[Path], output: str | None, tag: str, kind: str = "") -> Plan:
    """Decide what is read and written.

    Args:
        inputs: images, or folders of images.
        output: what was given as ``-o``: a file, a directory, or None for beside each input.
        tag: appended to the name of an input to name its output, e.g. ``_x2.7``.
        kind: format of outputs that are named after their input, e.g. ``webp``; empty for PNG.

    Raises:
        OutputError: if nothing can be written there.
        UsageError: if one output file is named for several inputs.
    """
    suffix = f".{kind.lower().removeprefix('.')}" if kind else DEFAULT_SUFFIX
    if suffix not in WRITABLE:
        known = ", ".join(sorted(name.removeprefix(".") for name in WRITABLE))
        raise UsageError(f"unknown image format {kind!r}; known: {known}")
    failures: list[tuple[Path, ScaleportError]] = []
    named: list[Path] = []
    found: list[Path] = []
    for path in inputs:
        if holds(path.is_dir):
            images = list(_images_in(path))
            found.extend(images)
            if not images:
                kinds = ", ".join(sorted(READ_SUFFIXES))
                failures.append((path, ImageError(f"{path} holds no images ({kinds})")))
        else:
            named.append(path)
    sources = list(dict.fromkeys([*named, *found]))
    several = len(inputs) > 1 or len(sources) > 1 or not named
    folder = _output_folder(output, several)
    file = Path(output) if output is not None and folder is None else None
    if file is not None:
        check_target(file)
    jobs = [Job(s, file or (folder or s.parent) / f"{s.stem}{tag}{suffix}") for s in sources]
    # What an earlier run left in the folder is not an input of this one.
    made = {job.target for job in jobs if job.source.parent == job.target.parent}
    jobs = [job for job in jobs if job.source in named or job.source not in made]
    _check_places({job.target.parent for job in jobs}, folder)
    kept: dict[Path, Job] = {}
    for job in jobs:
        other = kept.setdefault(job.target, job)
        problem = _problem(job, other)
        if problem:
            failures.append((job.source, OutputError(problem)))
            if other is job:
                del kept[job.target]
    return Plan(tuple(kept.values()), tuple(failures))


def _problem(job: Job, other: Job) -> str:
    if other is not job:
        return f"{job.source}: {job.target} is already the output of {other.source}"
    if holds(lambda: job.source.samefile(job.target)):
        return f"{job.target} is the input itself; choose another output"
    if holds(job.target.is_dir):
        return f"cannot write {job.target}: it is a directory"
    return ""


def _images_in(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"cannot read {folder}: {error.strerror or error}") from error
    for path in entries:
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith("."):
            yield path


def _output_folder(output: str | None, several: bool) -> Path | None:
    """The directory that ``-o`` names; None if it names a file or nothing."""
    if output is None:
        return None
    if not output:
        raise UsageError("-o is empty; give a file or a directory")
    path = Path(output)
    if holds(path.is_dir) or output.endswith(("/", "\\")):
        return path
    if not several:
        return None
    if path.suffix.lower() in WRITABLE:
        raise UsageError(f"several images cannot all become {path}; give a directory with -o")
    return path


def _check_places(places: set[Path], made: Path | None) -> None:
    """Try to write where outputs will go; only the directory given with ``-o`` may be new."""
    for place in sorted(places):
        existing = place.parent if place == made and not holds(place.exists) else place
        if not holds(existing.is_dir):
            raise OutputError(f"cannot write to {place}: there is no directory {existing}")
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise OutputError(f"cannot write to {place}: {error.strerror or error}") from error
