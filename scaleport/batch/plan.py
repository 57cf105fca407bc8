"""Which files a run reads and writes, decided before any work."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaleport.batch.find import Source, find_sources
from scaleport.errors import OutputError, ScaleportError, UsageError
from scaleport.imaging.files import WRITABLE, check_target
from scaleport.paths import holds
from scaleport.runtimes.video import CONTAINERS, is_video

DEFAULT_SUFFIX = ".png"


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """All jobs, and the inputs that no job can be made of."""

    jobs: tuple[Job, ...]
    failures: tuple[tuple[Path, ScaleportError], ...]


def plan(
    inputs: Sequence[Path | str],
    output: str | None,
    tag: str,
    kind: str = "",
    recursive: bool = False,
) -> Plan:
    """Decide what is read and written.

    What an earlier run left in a folder is not an input of this one, unless it is named itself.

    Args:
        inputs: images, folders of images, or patterns such as ``scans/*.tif``.
        output: a file, a directory, or None for beside each input. Below a directory, outputs lie
            as their inputs do below the folder or pattern that they were found by.
        tag: appended to the name of an input to name its output, e.g. ``_x2.7``.
        kind: format of outputs that are named after their input, e.g. ``webp``; empty for PNG.
        recursive: take images of folders within folders, too.

    Raises:
        OutputError: if nothing can be written there.
        UsageError: if one output file is named for several inputs.
    """
    suffix = f".{kind.lower().removeprefix('.')}" if kind else DEFAULT_SUFFIX
    if suffix not in WRITABLE:
        known = ", ".join(sorted(name.removeprefix(".") for name in WRITABLE))
        raise UsageError(f"unknown image format {kind!r}; known: {known}")
    sources, failures = find_sources(inputs, recursive)
    several = len(inputs) > 1 or len(sources) > 1 or not any(source.named for source in sources)
    folder = _output_folder(output, several)
    file = Path(output) if output is not None and folder is None else None
    if file is not None:
        if not is_video(sources[0].path):
            check_target(file)
    else:
        sources = _without_outputs(sources, folder)
    jobs: list[tuple[Source, Job]] = []
    for source in sources:
        place = source.path.parent if folder is None else folder / source.folder
        target = file or place / f"{source.path.stem}{tag}{_suffix(source.path, suffix)}"
        jobs.append((source, Job(source.path, target)))
    made = {job.target for _, job in jobs if job.source.parent == job.target.parent}
    wanted = [job for source, job in jobs if source.named or job.source not in made]
    places = {job.target.parent for job in wanted} if folder is None else {folder}
    _check_places(places if wanted else set(), folder)
    kept: dict[Path, Job] = {}
    for job in wanted:
        other = kept.setdefault(job.target, job)
        problem = _problem(job, other)
        if problem:
            failures.append((job.source, OutputError(problem)))
            if other is job:
                del kept[job.target]
    return Plan(tuple(kept.values()), tuple(failures))


def _without_outputs(sources: list[Source], folder: Path | None) -> list[Source]:
    """The sources, but not those that were found in the output folder within their own."""
    if folder is None:
        return sources
    target = folder.resolve()

    def is_output(source: Source) -> bool:
        path = source.path.resolve()
        root = source.path.parents[len(source.folder.parts)].resolve()
        return not source.named and root in target.parents and target in path.parents

    return [source for source in sources if not is_output(source)]


def _suffix(source: Path, images: str) -> str:
    """Suffix of an output: a video keeps its container where that can be written."""
    if not is_video(source):
        return images
    return source.suffix if source.suffix.lower() in CONTAINERS else ".mp4"


def _problem(job: Job, other: Job) -> str:
    if other is not job:
        return (
            f"{job.source}: {job.target} is already the output of {other.source}; "
            "name this one alone, with -o FILE"
        )
    if holds(lambda: job.source.samefile(job.target)):
        return f"{job.target} is the input itself; choose another output"
    if holds(job.target.is_dir):
        return f"cannot write {job.target}: it is a directory"
    return ""


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
