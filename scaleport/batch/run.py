"""Upscaling images, folders of images and videos: one call, or planning and running apart.

While the model is at work, the next file is decoded and the former one is encoded.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from scaleport.batch.memory import fit_memory
from scaleport.batch.plan import Job, Plan, plan, prepare_folders
from scaleport.batch.ray import Setup, run_on_ray
from scaleport.batch.work import Outcome, Request, Tell, Work, settings_digest
from scaleport.errors import ArtifactError, ScaleportError, UsageError, did_you_mean
from scaleport.imaging.writing import SaveOptions, VideoOptions
from scaleport.paths import path_of, remove_empty
from scaleport.progress import Progress, part, silent
from scaleport.runtimes.file import BITS
from scaleport.runtimes.scales import Fit, checked_grid
from scaleport.runtimes.upscaler import Upscaler, loaded

Engine = Literal["local", "ray"]
ENGINES: Final = get_args(Engine)
_AHEAD: Final = 1
"""Images that are decoded before it is their turn."""
_BEHIND: Final = 2
"""Images that are encoded or wait for it."""
_IN_MEMORY: Final = 2 + _AHEAD + _BEHIND
"""Images of several that are in memory at once."""


@dataclass(frozen=True)
class FilesOptions:
    """How files are upscaled.

    Attributes:
        kind: format of outputs that are named after their input, e.g. ``webp``; empty for PNG.
        bits: 8, 16 or 32 (float) bits per channel; 0 keeps those of each source.
        image: how image files are written.
        video: how videos are written.
        recursive: include images in subfolders.
        resume: keep outputs of an earlier run that are finished, unchanged, and made from the
            same inputs with the same settings.
        max_memory: limit of this process's resident memory in bytes, met by smaller tiles; 0
            for no limit.
        engine: ``local``, or ``ray`` for many processes or machines.
        address: address of a Ray cluster; empty starts one on this machine for this run.
    """

    kind: str = ""
    bits: int = 0
    image: SaveOptions = field(default_factory=SaveOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    recursive: bool = False
    resume: bool = False
    max_memory: int = 0
    engine: Engine = "local"
    address: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without the files."""
        if self.bits and self.bits not in BITS:
            raise UsageError(f"bits must be {', '.join(map(str, BITS))}, got {self.bits}")
        if self.engine not in ENGINES:
            raise UsageError(
                f"the engine is {' or '.join(ENGINES)}, got {self.engine!r}"
                f"{did_you_mean(self.engine, ENGINES)}"
            )
        if self.address and self.engine != "ray":
            raise UsageError("an address is that of a Ray cluster; choose the engine ray")


def upscale_files(
    upscaler: Upscaler,
    inputs: Sequence[Path | str] | Path | str,
    output: Path | str | None = None,
    *,
    scale: float | Iterable[float] | None = None,
    size: tuple[int, int] | Fit | None = None,
    options: FilesOptions | None = None,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> Report:
    """Upscale images, folders of images, and files that match patterns.

    A failure does not stop the other files. The pixels are those of
    :func:`scaleport.runtimes.file.upscale_file`.

    Args:
        upscaler: model and backend.
        inputs: image files, folders of images, and patterns such as ``scans/*.tif``; or one of
            them.
        output: a file, a directory (if it is there, or ends in ``/``), or None for beside each
            input.
        scale: one number, or (scale_y, scale_x).
        size: output size (height, width), or limits to fit into, instead of a scale.
        options: everything else.
        tell: called with every outcome, in the order of the jobs; with Ray as they come.
        progress: told of the bytes of inputs that are done, see :mod:`scaleport.progress`.

    Raises:
        ScaleError: if not exactly one of ``scale`` and ``size`` is given, or the scale is out of
            the model's range.
        OutputError: if nothing can be written there.
        ArtifactError: if the bundle is damaged.
        BackendError: if the backend cannot load the model.
        OutOfMemoryError: if ``max_memory`` is less than the smallest tile needs.
        UsageError: if an input is not a path.
    """
    return FilesRun(upscaler, inputs, output, scale, size, options).run(tell, progress)


def _paths(inputs: object) -> list[str]:
    """Inputs as texts, as patterns are; one path may stand for a list of one.

    Raises:
        UsageError: if one is no path, such as a picture.
    """
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(given, Iterable):
        given = [given]
    hint = "; to upscale pixels, call the upscaler: up(image, 2)"
    # A pattern that ends in a slash keeps it, which a path would lose.
    return [one if isinstance(one, str) else str(path_of(one, "an input", hint)) for one in given]


class FilesRun:
    """:func:`upscale_files` in two steps: the constructor plans, :meth:`run` does the work.

    Arguments and errors are those of :func:`upscale_files`.

    Attributes:
        plan: the jobs, the unusable inputs, and the files that were left out.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        inputs: Sequence[Path | str] | Path | str,
        output: Path | str | None,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | Fit | None = None,
        options: FilesOptions | None = None,
    ) -> None:
        self._upscaler, self._options = loaded(upscaler), options or FilesOptions()
        options = self._options
        self._request = Request.of(scale, size, options.bits, options.image, options.video)
        if self._request.scale is not None:
            checked_grid(upscaler.manifest, 1, 1, self._request.scale, None)
        place = None if output is None else str(output)
        paths = _paths(inputs)
        self.plan: Plan = plan(paths, place, self._request.tag, options.kind, options.recursive)
        if options.max_memory:
            fit_memory(upscaler, self.plan.jobs, self._request, options.max_memory, _IN_MEMORY)

    def run(self, tell: Tell | None = None, progress: Progress | None = None) -> Report:
        """Upscale everything."""
        upscaler, jobs, request, options = (
            self._upscaler,
            self.plan.jobs,
            self._request,
            self._options,
        )
        if options.engine == "ray":
            outcomes = run_on_ray(
                Setup.of(upscaler),
                jobs,
                request,
                address=options.address,
                resume=options.resume,
                tell=tell,
                progress=progress,
            )
        else:
            outcomes = run(
                upscaler, jobs, request, resume=options.resume, tell=tell, progress=progress
            )
        return Report.of(self.plan, outcomes)


@dataclass(frozen=True)
class Report:
    """The results of a run over many files.

    ``failures`` are (input, error) of inputs without an output; unusable inputs come first.
    ``left_out`` are (file, reason), see :class:`scaleport.batch.plan.Plan`.
    """

    outcomes: tuple[Outcome, ...]
    failures: tuple[tuple[Path, ScaleportError], ...]
    left_out: tuple[tuple[Path, str], ...] = ()

    def __repr__(self) -> str:
        counts = {"made": self.made, "kept": self.kept, "failed": len(self.failures)}
        counts["left out"] = len(self.left_out)
        return f"<Report: {', '.join(f'{n} {what}' for what, n in counts.items())}>"

    @classmethod
    def of(cls, work: Plan, outcomes: Iterable[Outcome]) -> Report:
        """The report of a plan whose jobs came to these outcomes."""
        ran = tuple(outcomes)
        failed = ((o.job.source, o.error) for o in ran if o.error is not None)
        return cls(ran, (*work.failures, *failed), work.left_out)

    @property
    def made(self) -> int:
        """Outputs that this run made."""
        return sum(outcome.result is not None and not outcome.kept for outcome in self.outcomes)

    @property
    def kept(self) -> int:
        """Outputs of an earlier run that were finished and unchanged, and kept."""
        return sum(outcome.kept for outcome in self.outcomes)


def run(
    upscaler: Upscaler,
    jobs: Sequence[Job],
    request: Request,
    *,
    resume: bool = False,
    record: bool | None = None,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Upscale files, one after the other on the model.

    Args:
        upscaler: model and backend.
        jobs: what to read and write.
        request: scale and format.
        resume: keep finished outputs, see :class:`scaleport.batch.run.FilesOptions`.
        record: whether to keep a journal beside the outputs; None for only if there are several
            jobs, or ``resume``.
        tell: called with every outcome, in the order of the jobs.
        progress: told of the bytes of inputs that are done, see :mod:`scaleport.progress`.

    Raises:
        OutputError: if a folder for outputs cannot be made.
        ArtifactError: if the bundle is damaged; no other job could fare better.
        BackendError: if the backend cannot load the model.
    """
    record = resume or len(jobs) > 1 if record is None else record
    journals, made = prepare_folders(jobs, record)
    settings = settings_digest(upscaler, request) if record else ""
    works = [Work(upscaler, job, request, journals, settings, resume) for job in jobs]
    outcomes: list[Outcome] = []
    shares, progress = _shares(jobs), progress or silent

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if tell is not None:
            tell(outcome)

    # One image has nothing to overlap with, and stops at once when it is told to.
    threads = len(works) > 1
    with contextlib.ExitStack() as stack:
        stack.callback(remove_empty, made)
        ahead, behind = _Line("decode", threads, stack), _Line("encode", threads, stack)
        todo = deque(works)
        for number, work in enumerate(works):
            text = f"{number + 1}/{len(jobs)} {work.job.source}"
            told = part(progress, shares[number], shares[number + 1], shares[-1], text)
            told(0, 1, "")
            while todo and len(ahead) <= _AHEAD:
                following = todo.popleft()
                ahead.add(following, following.load)
            outcome = ahead.next() or _rendered(upscaler, work, told)
            behind.add(work, work.finish if outcome is None else _given(outcome))
            while len(behind) > _BEHIND:
                done(_certain(behind.next()))
        while len(behind):
            done(_certain(behind.next()))
    return outcomes


class _Line:
    """Works that wait for one thread, in order; those that are left at the end are dropped.

    Args:
        name: of the thread.
        threads: False to do everything when it is added.
        stack: what closes the line.
    """

    def __init__(self, name: str, threads: bool, stack: contextlib.ExitStack) -> None:
        self._waiting: deque[tuple[Work, Future[Outcome | None]]] = deque()
        self._thread = ThreadPoolExecutor(1, f"scaleport-{name}") if threads else None
        stack.callback(self._drop)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, work: Work, call: Callable[[], Outcome | None]) -> None:
        """Have a step of a job done."""
        if self._thread is not None:
            self._waiting.append((work, self._thread.submit(call)))
            return
        future: Future[Outcome | None] = Future()
        self._waiting.append((work, future))
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    def next(self) -> Outcome | None:
        """Wait for the first job; what its step returned, or the outcome of its failure."""
        work, future = self._waiting[0]
        # Another thread may take a signal; this one wakes up to see it.
        while not wait([future], timeout=0.2).done:
            pass
        self._waiting.popleft()
        try:
            return future.result()
        except Exception as error:
            return work.failed(error)

    def _drop(self) -> None:
        for work, _ in self._waiting:
            work.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        for work, _ in self._waiting:
            work.discard()


def _shares(jobs: Sequence[Job]) -> list[float]:
    """How much of all work lies before each job, and all of it: by size of file, known at once."""
    shares = [0.0]
    for job in jobs:
        try:
            size = job.source.stat().st_size
        except (OSError, ValueError):
            size = 0
        shares.append(shares[-1] + max(1, size))
    return shares


def _rendered(upscaler: Upscaler, work: Work, progress: Progress) -> Outcome | None:
    """Run the model on a job that is decoded; the outcome if it fails."""
    try:
        # A backend that cannot load the model fails the whole run, not every image of it.
        _ = upscaler.device
    except BaseException:
        work.discard()
        raise
    try:
        work.render(progress)
    except ArtifactError:
        work.discard()
        raise
    except Exception as error:
        return work.failed(error)
    except BaseException:
        work.discard()
        raise
    return None


def _certain(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return outcome


def _given(outcome: Outcome) -> Callable[[], Outcome]:
    return lambda: outcome
