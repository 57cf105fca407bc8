"""Upscaling images, folders of images and videos: one call, or planning and running apart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from scaleport.batch.plan import Plan, plan
from scaleport.batch.ray import Setup, run_on_ray
from scaleport.batch.run import Report, Tell, fit_memory, run
from scaleport.batch.work import Request
from scaleport.errors import UsageError, did_you_mean
from scaleport.imaging.writing import SaveOptions, VideoOptions
from scaleport.paths import path_of
from scaleport.progress import Progress
from scaleport.runtimes.file import BITS
from scaleport.runtimes.scales import Fit, checked_grid
from scaleport.runtimes.upscaler import Upscaler, loaded

Engine = Literal["local", "ray"]
ENGINES: Final = get_args(Engine)


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
            fit_memory(upscaler, self.plan.jobs, self._request, options.max_memory)

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
