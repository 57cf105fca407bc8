"""Which files a run reads and writes, decided before any work."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaleport.batch.find import Source, find_sources
from scaleport.batch.names import checked_suffix, earlier_outputs, targets
from scaleport.errors import OutputError, ScaleportError, UsageError, did_you_mean
from scaleport.imaging.files import WRITABLE
from scaleport.imaging.kinds import CONTAINERS, is_video
from scaleport.paths import address_problem, holds, same_file_key

EARLIER = "an earlier run made it; name the file itself to upscale it"
"""Why a file in a folder is no input."""


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """All jobs, the inputs that no job can be made of, and the files that were left out.

    ``left_out`` are (file, reason): what earlier runs left in a folder, and what this run makes.
    """

    jobs: tuple[Job, ...]
    failures: tuple[tuple[Path, ScaleportError], ...]
    left_out: tuple[tuple[Path, str], ...] = ()


def plan(
    inputs: Sequence[Path | str],
    output: str | None,
    tag: str,
    kind: str = "",
    recursive: bool = False,
) -> Plan:
    """Decide what is read and written.

    What an earlier run left in a folder is not an input of this one, unless it is named itself;
    what this run makes never is.

    Args:
        inputs: images, folders of images, or patterns such as ``scans/*.tif``.
        output: a file, a directory, or None for beside each input; folders that are missing will
            be made. Below a directory, outputs lie as their inputs do below the folder or pattern
            that they were found by.
        tag: appended to the name of an input to name its output, e.g. ``_x2.7``. Inputs whose
            outputs would get one name keep their suffix in it, e.g. ``photo_jpg_x2.7.png``.
        kind: format of outputs that are named after their input, e.g. ``webp``; empty for PNG.
        recursive: include images in subfolders.

    Raises:
        OutputError: if nothing can be written there.
        UsageError: if one output file is named for several inputs.
    """
    suffix = checked_suffix(kind)
    sources, failures = find_sources(inputs, recursive)
    several = max(len(inputs), len(sources)) > 1 or any(not source.named for source in sources)
    folder = _output_folder(output, several)
    file = Path(output) if output is not None and folder is None else None
    left_out: list[tuple[Path, str]] = []
    if file is not None:
        _check_suffix(file, any(is_video(source.path) for source in sources))
        made = [file] * len(sources)
    else:
        sources = _without_outputs(sources, folder)
        earlier = {source.path for source in earlier_outputs(sources)}
        left_out += [(s.path, EARLIER) for s in sources if s.path in earlier]
        sources = [source for source in sources if source.path not in earlier]
        made = targets(sources, folder, tag, suffix)
    jobs = [Job(source.path, target) for source, target in zip(sources, made, strict=True)]
    wanted, outputs = _without_made(jobs)
    left_out += outputs
    _check_places({job.target.parent for job in wanted})
    kept, clashes = _without_clashes(wanted)
    return Plan(tuple(kept), (*failures, *clashes), tuple(left_out))


def _without_made(jobs: Sequence[Job]) -> tuple[list[Job], list[tuple[Path, str]]]:
    """The jobs whose source no other one makes, and (source, reason) of the others."""
    makers = {same_file_key(job.target): job for job in jobs}
    wanted, left_out = [], []
    for job in jobs:
        maker = makers.get(same_file_key(job.source))
        if maker is None or maker is job:
            wanted.append(job)
        else:
            left_out.append((job.source, f"this run makes it from {maker.source}"))
    return wanted, left_out


def _without_clashes(
    jobs: Sequence[Job],
) -> tuple[list[Job], list[tuple[Path, ScaleportError]]]:
    """The jobs with an output of their own that can be written, and the errors of the others."""
    kept: dict[Path, Job] = {}
    failures: list[tuple[Path, ScaleportError]] = []
    for job in jobs:
        other = kept.setdefault(job.target, job)
        problem = _problem(job, other)
        if problem:
            failures.append((job.source, OutputError(problem)))
            if other is job:
                del kept[job.target]
    return list(kept.values()), failures


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


def _check_suffix(file: Path, video: bool) -> None:
    """Refuse an output whose suffix names nothing that can be written, before any work."""
    known = CONTAINERS if video else WRITABLE
    suffix = file.suffix.lower()
    if suffix in known:
        return
    if not suffix:
        raise OutputError(
            f"cannot tell the format of {file}: it has no suffix; end it in one of "
            f"{', '.join(known)}, or in / for a folder"
        )
    what = "a video cannot become" if video else "cannot write"
    raise OutputError(
        f"{what} {file}: no format is known by the suffix {suffix}"
        f"{did_you_mean(suffix, known)}; use one of {', '.join(known)}"
    )


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
    if address_problem(output):
        raise UsageError(f"-o {output} is an address; outputs are files: write one and upload it")
    path = Path(output)
    if holds(path.is_dir) or output.endswith(("/", "\\")):
        return path
    if not several:
        return None
    if path.suffix.lower() in WRITABLE:
        raise UsageError(f"several images cannot all become {path}; give a directory with -o")
    return path


def _check_places(places: set[Path]) -> None:
    """Try to write where outputs will go; of folders that are missing, where they will be made."""
    for place in sorted(places):
        existing = place
        while not holds(existing.exists) and existing != existing.parent:
            existing = existing.parent
        if not holds(existing.is_dir):
            raise OutputError(f"cannot write to {place}: {existing} is a file, not a directory")
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise OutputError(f"cannot write to {place}: {error.strerror or error}") from error
