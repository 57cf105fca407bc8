"""What is asked of every file, and the steps of one: load, render, finish."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from scaleport import __version__
from scaleport.batch.journal import Entry, Journal, recorded_name
from scaleport.batch.plan import Job
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import encode
from scaleport.errors import (
    ImageError,
    OutOfMemoryError,
    OutputError,
    ScaleError,
    ScaleportError,
)
from scaleport.grid import parse_scale
from scaleport.imaging.kinds import is_video
from scaleport.imaging.writing import SaveOptions, VideoOptions
from scaleport.progress import Progress
from scaleport.runtimes.file import FileResult, FileUpscale
from scaleport.runtimes.scales import Fit
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.video import VideoUpscale


@dataclass(frozen=True)
class Outcome:
    """The result of one job.

    Attributes:
        job: the job.
        result: the output that was made or kept; None if the job failed.
        error: the error; None if the job succeeded.
        kept: whether the finished, unchanged output of an earlier run was kept.
        seconds: time from opening the source to the finished output, including the wait for
            other images.
    """

    job: Job
    result: FileResult | None = None
    error: ScaleportError | None = None
    kept: bool = False
    seconds: float = 0.0


Tell = Callable[[Outcome], None]


class Work:
    """One job of a run. The steps run one after the other, in any thread each.

    Args:
        upscaler: model and backend.
        job: what to read and write.
        request: scale and format.
        journals: by folder of outputs; of folders that have none, nothing is recorded.
        settings: of :func:`scaleport.batch.work.settings_digest`.
        resume: whether a finished output may be kept.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        job: Job,
        request: Request,
        journals: Mapping[Path, Journal],
        settings: str = "",
        resume: bool = False,
    ) -> None:
        self.job = job
        self._upscaler, self._request = upscaler, request
        self._journal, self._settings = journals.get(job.target.parent), settings
        self._resume = resume
        self._file: FileUpscale | VideoUpscale | None = None
        self._input_sha256 = ""
        self._start = 0.0

    def load(self) -> Outcome | None:
        """Open and decode the source; the outcome if there is nothing to do any more.

        Raises:
            ScaleportError: if the source cannot be read or the request does not fit it.
        """
        self._start = time.perf_counter()
        job = self.job
        if self._journal is not None:
            # Taken before the pixels are read: a source that changes meanwhile is made again.
            self._input_sha256 = _input_digest(job.source)
            if self._resume:
                entry = self._journal.find(job.target, self._input_sha256, self._settings)
                if entry is not None:
                    result = FileResult(entry.input_size, entry.output_size, (), 0)
                    return Outcome(job, result, kept=True, seconds=self._seconds())
        try:
            self._file = self._opened()
        except ScaleError as error:
            raise ScaleError(f"{job.source}: {error}") from error
        self._file.preload()
        return None

    def _opened(self) -> FileUpscale | VideoUpscale:
        job, request = self.job, self._request
        files = (self._upscaler, job.source, job.target)
        grid = (request.scale, request.size)
        if is_video(job.source):
            return VideoUpscale(*files, *grid, request.video)
        return FileUpscale(*files, *grid, request.bits, request.options)

    def render(self, progress: Progress | None = None) -> None:
        """Run the model."""
        assert self._file is not None
        self._file.render(progress)

    def finish(self) -> Outcome:
        """Encode, put the output under its name and record it."""
        assert self._file is not None
        result = self._file.finish()
        if self._journal is not None:
            target = self.job.target
            try:
                written = sha256_file(target)
            except OSError as error:
                raise OutputError(f"cannot read {target} again: {error}") from error
            self._journal.add(
                Entry(
                    output=recorded_name(target),
                    bytes=written.bytes,
                    sha256=written.sha256,
                    input_sha256=self._input_sha256,
                    settings=self._settings,
                    input_size=result.input_size,
                    output_size=result.output_size,
                )
            )
        return Outcome(self.job, result, seconds=self._seconds())

    def cancel(self) -> None:
        """Have the step that another thread is at end soon, without an output."""
        if self._file is not None:
            self._file.cancel()

    def discard(self) -> None:
        """Drop what is half done."""
        if self._file is not None:
            self._file.discard()

    def failed(self, error: Exception) -> Outcome:
        """The outcome that an exception in any step means."""
        self.discard()
        source = self.job.source
        if isinstance(error, MemoryError):
            error = OutOfMemoryError(f"{source}: out of memory; smaller tiles need less")
        elif not isinstance(error, ScaleportError):
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            wrapped = ScaleportError(f"{source}: internal error, {said}")
            wrapped.__cause__ = error
            error = wrapped
        return Outcome(self.job, error=error, seconds=self._seconds())

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _input_digest(path: Path) -> str:
    try:
        return sha256_file(path).sha256
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"cannot read {path}: {why or error}") from error


@dataclass(frozen=True)
class Request:
    """Scale or size, and how outputs are written.

    Attributes:
        scale: (vertical, horizontal), or None if ``size`` is given.
        size: output size (height, width) in pixels, or limits that a picture of its own shape is
            fitted into; None if ``scale`` is given.
        bits: 8, 16 or 32 (float) bits per channel; 0 keeps those of each source.
        options: how image files are written.
        video: how videos are written.
    """

    scale: tuple[float, float] | None = None
    size: tuple[int, int] | Fit | None = None
    bits: int = 0
    options: SaveOptions = field(default_factory=SaveOptions)
    video: VideoOptions = field(default_factory=VideoOptions)

    @classmethod
    def of(
        cls,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | Fit | None = None,
        bits: int = 0,
        options: SaveOptions | None = None,
        video: VideoOptions | None = None,
    ) -> Request:
        """A request of one scale for both directions, a pair, or a size.

        Raises:
            ScaleError: if not exactly one of ``scale`` and ``size`` is given, or it is no scale.
        """
        if (scale is None) == (size is None):
            raise ScaleError(
                "give either a scale (-s 2.7) or a size (--size or --fit 1920x1080, --width 1920)"
            )
        pair = None if scale is None else parse_scale(scale)
        return cls(pair, size, bits, options or SaveOptions(), video or VideoOptions())

    @property
    def tag(self) -> str:
        """What is appended to the names of outputs, e.g. ``_x2.7``."""
        if isinstance(self.size, Fit):
            return _tag_of(self.size)
        if self.size is not None:
            return f"_{self.size[1]}x{self.size[0]}"
        assert self.scale is not None
        shown = dict.fromkeys(f"x{value:g}" for value in self.scale)
        return "_" + "".join(shown)


def _tag_of(fit: Fit) -> str:
    if fit.width and fit.height:
        return f"_fit{fit.width}x{fit.height}" + (f"_longest{fit.longest}" if fit.longest else "")
    sides = {"w": fit.width, "h": fit.height, "longest": fit.longest}
    return "".join(f"_{name}{side}" for name, side in sides.items() if side)


def settings_digest(upscaler: Upscaler, request: Request) -> str:
    """SHA-256 of everything but the source that output bytes depend on.

    The model with its graphs, the backend and its version, precision, device and tiles, the
    request, and the version of Scaleport. The number of threads is not part of it.
    """
    stages = upscaler.stages
    # Judging a bundle anew writes other parity results into it and changes no pixel.
    manifest = msgspec.structs.replace(upscaler.manifest, parity=None)
    options = stages.options
    said = {
        "scaleport": __version__,
        "bundle": hashlib.sha256(encode(manifest)).hexdigest(),
        "backend": [upscaler.backend, stages.found.version, upscaler.precision],
        "device": [options.device, options.inference_precision, repr(dict(options.extra))],
        "policy": asdict(upscaler.policy),
        "request": asdict(request),
    }
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
