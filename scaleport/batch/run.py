"""Running many jobs: the next is decoded and the former encoded while the model is at work."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.atomic import remove_leftovers
from scaleport.batch.journal import Journal
from scaleport.batch.plan import Job, Plan
from scaleport.batch.work import Outcome, Request, Work, settings_digest
from scaleport.errors import ArtifactError, ScaleportError
from scaleport.imaging.reading import open_picture
from scaleport.paths import make_folder, remove_empty
from scaleport.progress import Progress, part, silent
from scaleport.runtimes.budget import Task, fitting_policy
from scaleport.runtimes.file import BITS
from scaleport.runtimes.scales import checked_grid, fitted
from scaleport.runtimes.upscaler import Upscaler

Tell = Callable[[Outcome], None]

_AHEAD: Final = 1
"""Images that are decoded before it is their turn."""
_BEHIND: Final = 2
"""Images that are encoded or wait for it."""


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
        resume: keep finished outputs, see :class:`scaleport.batch.files.FilesOptions`.
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


def fit_memory(upscaler: Upscaler, jobs: Sequence[Job], request: Request, limit: int) -> None:
    """Choose the upscaler's tile so that a run of these jobs stays within a limit.

    Args:
        upscaler: model and backend; the tile of its policy becomes smaller if need be.
        jobs: everything that will be upscaled; unreadable files are ignored.
        request: scale and format.
        limit: bytes of resident memory of this process.

    Raises:
        OutOfMemoryError: if even the smallest tile does not fit.
        BackendError: if memory cannot be measured on this system.
    """
    tasks = []
    for job in jobs:
        try:
            picture = open_picture(job.source)
            size = fitted(request.size, picture.shape)
            grid = checked_grid(upscaler.manifest, *picture.shape, request.scale, size)
        except ScaleportError:
            continue  # the run reports it
        layout = picture.layout
        if request.bits:
            layout = replace(layout, dtype=np.dtype(BITS[request.bits]))
        tasks.append(Task(grid, layout))
    held = 1 if len(jobs) == 1 else 2 + _AHEAD + _BEHIND
    upscaler.policy = fitting_policy(upscaler, tasks, limit, held)


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
