"""The same run on Ray Data (extra ``ray``): on this machine, or on a cluster by its address.

Every worker loads the bundle and upscales whole files, step by step as a local run does; files and
bundle are named by path, so all machines need the same folders. Only the program that was started
writes the journal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scaleport import errors
from scaleport.batch.journal import Entry, Journal
from scaleport.batch.plan import Job, prepare_folders
from scaleport.batch.work import Outcome, Request, Tell, Work, settings_digest
from scaleport.errors import ArtifactError, BackendError, ScaleportError, UsageError, last_line
from scaleport.paths import remove_empty
from scaleport.progress import Progress
from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.file import FileResult
from scaleport.runtimes.upscaler import BundleSource, Upscaler, load
from scaleport.runtimes.view import TilePolicy


@dataclass(frozen=True)
class Setup:
    """How every worker loads the model; see :func:`scaleport.runtimes.upscaler.load`."""

    bundle: Path
    backend: str
    precision: str
    options: SessionOptions
    policy: TilePolicy
    allow: tuple[str, ...] = ()
    verify_key: Path | None = None

    @classmethod
    def of(cls, upscaler: Upscaler) -> Setup:
        """What loads this model again, elsewhere.

        Raises:
            UsageError: if its graphs are not those of a bundle.
        """
        source = upscaler.stages.source
        if not isinstance(source, BundleSource):
            raise UsageError("only the graphs of a bundle can be loaded by other processes")
        bundle = source.bundle
        return cls(
            bundle.path.absolute(),
            upscaler.backend,
            upscaler.precision,
            upscaler.stages.options,
            upscaler.policy,
            bundle.allow,
            bundle.verify_key,
        )


def run_on_ray(
    setup: Setup,
    jobs: Sequence[Job],
    request: Request,
    *,
    address: str = "",
    workers: int = 0,
    resume: bool = False,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Upscale files on Ray workers; arguments, results and errors are those of ``run``.

    Args:
        setup: how workers load the model.
        jobs: what to read and write.
        request: scale and format.
        address: of a cluster; empty for one on this machine that ends with the run.
        workers: how many at a time; 0 for one per processor core, or per ``threads`` of them.
        resume: keep finished outputs.
        tell: called with every outcome as it comes.
        progress: told of the jobs that are done.

    Returns:
        Outcomes in the order of the jobs.

    Raises:
        BackendError: if Ray is not installed or does not start, or the model cannot be loaded.
        ArtifactError: if the bundle is damaged.
    """
    ray = _ray()
    if not jobs:
        return []
    journals, made_folders = prepare_folders(jobs, record=resume or len(jobs) > 1)
    rows = [
        {"number": i, "source": str(_absolute(j.source)), "target": str(_absolute(j.target))}
        for i, j in enumerate(jobs)
    ]
    outcomes: dict[int, Outcome] = {}
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address or "local", log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cores = max(1, setup.options.threads)
        most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // cores)
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker,
            fn_constructor_args=(setup, request, bool(journals), resume),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(rows))),
            num_cpus=cores,
        )
        for row in made.iter_rows():
            found = msgspec.json.decode(row["outcome"])
            job = jobs[int(row["number"])]
            outcome = _outcome(job, found, journals)
            outcomes[int(row["number"])] = outcome
            if tell is not None:
                tell(outcome)
            if progress is not None:
                progress(len(outcomes), len(jobs), str(job.source))
    except ScaleportError:
        raise
    except Exception as error:
        raise BackendError(f"Ray failed: {last_line(error)}") from error
    finally:
        if started and ray.is_initialized():
            ray.shutdown()
        remove_empty(made_folders)
    return [outcomes[number] for number in sorted(outcomes)]


class Worker:
    """What lives in a process of Ray: a loaded model that upscales one file per call."""

    def __init__(self, setup: Setup, request: Request, record: bool, resume: bool) -> None:
        self._upscaler = load(
            setup.bundle,
            setup.backend,
            setup.precision,
            policy=setup.policy,
            options=setup.options,
            allow=setup.allow,
            verify_key=setup.verify_key,
        )
        self._request, self._record, self._resume = request, record, resume
        self._settings = settings_digest(self._upscaler, request)
        self._journals: dict[Path, _Reported] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Upscale the file of a row; the outcome as JSON."""
        job = Job(Path(row["source"]), Path(row["target"]))
        folder = job.target.parent
        if self._record and folder not in self._journals:
            self._journals[folder] = _Reported(folder)
        work = Work(
            self._upscaler, job, self._request, self._journals, self._settings, self._resume
        )
        fatal = False
        try:
            outcome = work.load()
            if outcome is None:
                try:
                    _ = self._upscaler.device
                except Exception:
                    fatal = True
                    raise
                work.render()
                outcome = work.finish()
        except Exception as error:
            outcome = work.failed(error)
            fatal = fatal or isinstance(error, ArtifactError)
        finally:
            work.discard()
        added = self._journals[folder].take() if self._record else None
        said = {
            "result": outcome.result,
            "error": None if outcome.error is None else str(outcome.error),
            "kind": type(outcome.error).__name__,
            "fatal": fatal,
            "kept": outcome.kept,
            "seconds": outcome.seconds,
            "entry": added,
        }
        return {"number": row["number"], "outcome": msgspec.json.encode(said)}


class _Reported(Journal):
    """A journal that is read here and written by the program that was started."""

    _last: Entry | None = None

    def add(self, entry: Entry) -> None:
        self._last = entry

    def take(self) -> Entry | None:
        last, self._last = self._last, None
        return last


def _outcome(job: Job, found: dict[str, Any], journals: Mapping[Path, Journal]) -> Outcome:
    """What a worker said, with the finished output recorded."""
    if found["error"] is not None:
        error = _error(found["kind"], found["error"])
        if found["fatal"]:
            raise error
        return Outcome(job, error=error, seconds=found["seconds"])
    if found["entry"] is not None:
        journals[job.target.parent].add(msgspec.convert(found["entry"], Entry))
    result = msgspec.convert(found["result"], FileResult)
    return Outcome(job, result, kept=found["kept"], seconds=found["seconds"])


def _error(kind: str, message: str) -> ScaleportError:
    """The error that a worker met; some take more than a message."""
    cls = getattr(errors, kind, ScaleportError)
    try:
        found = cls(message)
    except TypeError:
        found = BackendError(message)
    return found if isinstance(found, ScaleportError) else ScaleportError(message)


def _absolute(path: Path) -> Path:
    return Path.cwd() / path


def _ray() -> Any:
    # Nothing is reported to anybody unless the user wants that.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Remarks about its own workings, on the terminal of whoever started this.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(
            "--engine ray needs ray, which is not installed: pip install 'scaleport[ray]'"
        ) from error
    return ray
