"""Which files a run reads and writes, found and decided before any work."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scaleport.atomic import remove_leftovers
from scaleport.batch.journal import Journal
from scaleport.batch.names import earlier_outputs, targets
from scaleport.errors import ImageError, OutputError, ScaleportError, UsageError, did_you_mean
from scaleport.imaging.files import WRITABLE
from scaleport.imaging.kinds import CONTAINERS, VIDEO_SUFFIXES, is_video
from scaleport.paths import address_problem, holds, make_folder, same_file_key, similar_name

EARLIER = "an earlier run made it; name the file itself to upscale it"
"""Why a file in a folder is no input."""
READ_SUFFIXES: Final = frozenset(WRITABLE) | {
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


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        path: the file.
        folder: where it lies below the folder or pattern that it was found by.
        named: whether it was named itself.
    """

    path: Path
    folder: Path = Path()
    named: bool = False


def find_sources(
    inputs: Sequence[Path | str], recursive: bool = False
) -> tuple[list[Source], list[tuple[Path, ScaleportError]]]:
    """Files that inputs stand for, those that are named first, each once.

    Args:
        inputs: files, folders of images, or patterns such as ``scans/*.tif`` and ``**/*.png``.
        recursive: take images of the folders within folders, too.

    Returns:
        The sources, and the inputs that stand for nothing, with the reason.
    """
    named: list[Source] = []
    found: list[Source] = []
    failures: list[tuple[Path, ScaleportError]] = []
    for given in inputs:
        path = Path(given)
        try:
            if holds(path.is_dir):
                more = list(_images_in(path, recursive))
                kinds = ", ".join(sorted(READ_SUFFIXES))
                nothing = f"{path} holds no images ({kinds})"
            elif glob.has_magic(str(given)) and not holds(path.exists):
                more = list(_matching(str(given), recursive))
                nothing = f"no image matches {given}"
            else:
                problem = _missing(given, path)
                if problem:
                    failures.append((path, ImageError(problem)))
                else:
                    named.append(Source(path, named=True))
                continue
        except OSError as error:
            failures.append((path, ImageError(f"cannot read {path}: {error.strerror or error}")))
            continue
        if not more:
            failures.append((path, ImageError(nothing)))
        found.extend(more)
    kept: dict[str, Source] = {}
    for source in (*named, *found):
        kept.setdefault(same_file_key(source.path), source)
    return list(kept.values()), failures


def _missing(given: Path | str, path: Path) -> str:
    """What is wrong with a named file that is not there; reading says what else can be wrong."""
    problem = address_problem(given)
    if problem or str(given) == "-" or holds(lambda: os.path.lexists(path)):
        return problem
    try:
        path.lstat()
    except FileNotFoundError:
        return f"cannot read {path}: there is no such file{similar_name(path)}"
    except (OSError, ValueError):
        return ""
    return ""


def _images_in(folder: Path, recursive: bool, below: Path | None = None) -> Iterator[Source]:
    """Images of a folder, sorted; folders behind links and hidden ones are not entered."""

    def refuse(error: OSError) -> None:
        raise error

    below = below or Path()
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(n for n in folders if not n.startswith(".")) if recursive else []
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in READ_SUFFIXES:
                yield Source(Path(place) / name, below / Path(place).relative_to(folder))


def _matching(pattern: str, recursive: bool) -> Iterator[Source]:
    """What a pattern matches, sorted; a folder that matches stands for its images."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[: min(fixed, len(parts) - 1)])
    # A pattern that spells its suffix out means that; otherwise images are meant.
    suffix = Path(parts[-1]).suffix
    spelled = bool(suffix) and not glob.has_magic(suffix)
    # Path.glob takes no absolute patterns.
    for match in sorted(map(Path, glob.iglob(pattern, recursive=True))):  # noqa: PTH207
        if match.is_dir():
            if "**" not in parts:
                yield from _images_in(match, recursive, match.relative_to(root))
        elif spelled or match.suffix.lower() in READ_SUFFIXES | VIDEO_SUFFIXES:
            yield Source(match, match.parent.relative_to(root))


def checked_suffix(kind: str) -> str:
    """The suffix that ``--format`` names, ``.png`` for none.

    Raises:
        UsageError: if there is no such format.
    """
    suffix = f".{kind.lower().removeprefix('.')}" if kind else ".png"
    if suffix not in WRITABLE:
        known = sorted(name.removeprefix(".") for name in WRITABLE)
        raise UsageError(
            f"unknown image format {kind!r}{did_you_mean(kind.lower(), known)}; "
            f"known: {', '.join(known)}"
        )
    return suffix


def prepare_folders(jobs: Sequence[Job], record: bool) -> tuple[dict[Path, Journal], list[Path]]:
    """Make the folders of outputs and remove what killed runs left there.

    Args:
        jobs: what will be written.
        record: False for no journals.

    Returns:
        The journals of the folders, and the folders that were missing, the deepest first.

    Raises:
        OutputError: if a folder cannot be made.
    """
    folders = sorted({job.target.parent for job in jobs})
    made: list[Path] = []
    for folder in folders:
        made += make_folder(folder)
        remove_leftovers(folder)
    made.sort(key=lambda path: len(path.parts), reverse=True)
    return {folder: Journal(folder) for folder in folders} if record else {}, made
