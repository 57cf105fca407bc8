"""What can run on this machine, whether it computes rightly, and what a bundle does on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import BackendError, GateFailed, ScaleportError
from scaleport.progress import Progress, Steps
from scaleport.runtimes.base import Availability, offers, source_format, stored_format
from scaleport.runtimes.registry import availability, backend_names, get_backend, require
from scaleport.runtimes.upscaler import load
from scaleport.validation.operators import Coverage, coverage_of, is_known
from scaleport.validation.selftest import SelfTest, has_tile, self_test

_TRIAL_SIZE: Final = (19, 23)
"""Rows and columns of the image that each backend upscales: odd, and unlike each other."""
_TRIAL_SCALE: Final = 2.3


@dataclass(frozen=True)
class Check:
    """One thing that was tried on a bundle, and its error if it failed.

    Attributes:
        what: ``hashes`` or ``run``.
        backend: what loaded the graphs and upscaled a small image; empty for hashes.
        precision: of the graphs.
        device: provider and device that they really ran on.
        graphs: how many were loaded, or files that were compared with their hashes.
        seconds: how long it took.
        error: why it failed; None if it did not.
    """

    what: str
    backend: str = ""
    precision: str = ""
    device: str = ""
    graphs: int = 0
    seconds: float = 0.0
    error: ScaleportError | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        backends: whether each can run here, and if not, why not.
        devices: what each usable backend could run on, by its own names.
        golden_tile: the tiny network of the package on each usable backend.
        checks: what was tried on the bundle; empty without one.
        operations: of the bundle's graphs, by what they really run on.
    """

    backends: dict[str, Availability]
    devices: dict[str, tuple[str, ...]]
    golden_tile: tuple[SelfTest, ...]
    checks: tuple[Check, ...]
    operations: dict[str, tuple[Coverage, ...]]

    @property
    def failures(self) -> tuple[ScaleportError, ...]:
        """What is wrong, those of the bundle first; a backend that is missing is no failure."""
        wrong = [test for test in self.golden_tile if not test.passed]
        return (
            *(check.error for check in self.checks if check.error is not None),
            *(
                GateFailed(f"{test.backend} computes the golden tile wrongly: {test.note}")
                for test in wrong
            ),
        )


def doctor(
    bundle: Path | str | Bundle | None = None,
    backends: Sequence[str] = (),
    probe: bool = True,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find out which backends can run here and whether they compute rightly.

    Every usable backend runs a tiny network that comes with the package, and its output is
    compared with what PyTorch made of it. With a bundle, every file is compared with its hash,
    every usable backend loads every graph and upscales a small image, and the operations of the
    graphs are counted by what they really run on.

    Args:
        bundle: a bundle to check too.
        backends: only these, which must be usable; empty for all.
        probe: also import libraries that take seconds, such as PyTorch, to see their devices; a
            bundle or ``backends`` ask for it anyway.
        progress: told of each step, see :mod:`scaleport.progress`.

    Raises:
        BackendError: if a backend that was named cannot run here.
        UsageError: if a name is unknown, or there is no such bundle.
        ArtifactError: if what is there is no bundle.
    """
    return Examination(bundle, backends, probe).run(progress)


class Examination:
    """The same in two steps: making it finds the backends, :meth:`run` has them compute.

    Arguments and errors are those of :func:`doctor`.

    Attributes:
        backends: whether each can run here, and if not, why not.
    """

    def __init__(
        self,
        bundle: Path | str | Bundle | None = None,
        backends: Sequence[str] = (),
        probe: bool = True,
    ) -> None:
        names = list(dict.fromkeys(backends or backend_names()))
        self._asked = bool(backends)
        self._probes = probe or bundle is not None or self._asked
        self.backends: dict[str, Availability] = {
            name: require(name)[1] if backends else availability(name, self._probes)
            for name in names
        }
        # A wrong path is known before everything else is tried.
        opened = bundle if isinstance(bundle, Bundle | None) else open_bundle(bundle)
        self._bundle: Bundle | None = opened

    def run(self, progress: Progress | None = None) -> Diagnosis:
        """Run the golden tile and the bundle."""
        step = Steps(progress)
        usable = [name for name, found in self.backends.items() if found.usable]
        asked = [name for name in usable if self._probes or not _is_slow(name)]
        tests = []
        for name in asked:
            if has_tile(get_backend(name)):
                step(f"golden tile on {name}")
                tests.append(self_test(name))
        checks: list[Check] = []
        operations: dict[str, tuple[Coverage, ...]] = {}
        if self._bundle is not None:
            checks = _check_bundle(self._bundle, usable, self._asked, step)
            if checks[0].error is None:
                operations = _operations(self._bundle, list(self.backends), step)
        devices = {name: get_backend(name).devices() for name in asked}
        return Diagnosis(self.backends, devices, tuple(tests), tuple(checks), operations)


def _is_slow(name: str) -> bool:
    """Whether a backend's library takes longer to import than everything else here together."""
    return offers(get_backend(name), "glance")


def _operations(
    bundle: Bundle, names: Sequence[str], step: Steps
) -> dict[str, tuple[Coverage, ...]]:
    found = {}
    for name in filter(is_known, names):
        form = source_format(get_backend(name))
        step(f"operations on {name}")
        items = [c for p in bundle.precisions(form) for c in coverage_of(bundle, name, p)]
        if items:
            found[name] = tuple(items)
    return found


def _check_bundle(bundle: Bundle, usable: Sequence[str], asked: bool, step: Steps) -> list[Check]:
    step("hashes")
    start = time.perf_counter()
    try:
        bundle.verify()
    except ScaleportError as error:
        return [Check("hashes", error=error)]
    checks = [Check("hashes", graphs=len(bundle.manifest.files), seconds=_since(start))]
    tried = False
    for name in usable:
        precisions: tuple[str, ...] = bundle.precisions(stored_format(get_backend(name)))
        if not precisions and asked:
            precisions = ("fp32",)
        for precision in precisions:
            step(f"{name} {precision}")
            checks.append(_try(bundle, name, precision))
            tried = True
    if not tried:
        there = ", ".join(bundle.formats()) or "none"
        missing = BackendError(
            f"no backend that is usable here runs {bundle.path}; its formats: {there}"
        )
        checks.append(Check("run", error=missing))
    return checks


def _try(bundle: Bundle, backend: str, precision: str) -> Check:
    scales = bundle.manifest.scale
    scale = min(max(_TRIAL_SCALE, scales.min), scales.max)
    image = np.arange(3 * _TRIAL_SIZE[0] * _TRIAL_SIZE[1], dtype=np.uint32) * 37 % 256
    start = time.perf_counter()
    try:
        upscaler = load(bundle, backend, precision)
        own = upscaler.stages.backend
        graphs = bundle.graphs(stored_format(own), None, precision)
        # A checkpoint has no whole graphs, only the stages.
        plain = own.runs_checkpoint
        stages = [g.stage for g in graphs if not plain or not g.stage.startswith("whole")]
        for stage in stages:
            upscaler.stages.session(stage)
        upscaler(image.astype(np.uint8).reshape(*_TRIAL_SIZE, 3), scale)
    except ScaleportError as error:
        return Check("run", backend, precision, error=error)
    return Check("run", backend, precision, upscaler.device, len(stages), _since(start))


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
