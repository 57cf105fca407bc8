"""The parity matrix for tests of other projects.

An application tests the bundle that it ships; an implementation of a third party, with or without
our runtime, is held against the same reference by the same gates. ``docs/parity.md`` shows both.
Needs torch, for the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import InferencePrecision, ParityResult
from scaleport.bundle.reader import open_bundle
from scaleport.grid import Grid
from scaleport.runtimes.upscaler import Upscaler, load
from scaleport.runtimes.view import View
from scaleport.validation.parity.cases import Case, Selection, plan_cases, policy_of
from scaleport.validation.parity.combinations import combinations_of
from scaleport.validation.parity.gates import Gates, judge
from scaleport.validation.parity.proof import measure, run_whole
from scaleport.validation.report.summary import describe, scale_text

if TYPE_CHECKING:
    from scaleport.validation.parity.reference import Reference

__all__ = ["Gates", "ParityCase", "ParitySuite"]

OWN = "own"
"""Name, in results, of an implementation that is no backend of ours."""


class ParitySuite:
    """The parity cases of one bundle, and the reference that they are judged by.

    Args:
        bundle: the bundle directory.
        selection: ``quick``, every shape and scale once, or ``full``.
        gates: thresholds; those of ``scaleport validate`` when left out.
        threads: processor threads; 0 leaves it to PyTorch and the backends.

    Raises:
        UsageError: if there is no such bundle.
        ArtifactError: if it is damaged.
    """

    def __init__(
        self,
        bundle: Path | str,
        selection: Selection = "quick",
        gates: Gates | None = None,
        threads: int = 0,
    ) -> None:
        self.bundle = open_bundle(Path(bundle))
        self.gates = gates or Gates()
        self._selection: Selection = selection
        self._threads = threads
        self._upscalers: dict[tuple[str, str], Upscaler] = {}

    @cached_property
    def reference(self) -> Reference:
        """The network as published, loaded when first needed."""
        from scaleport.validation.parity.reference import Reference

        return Reference(self.bundle, self._threads)

    def cases(
        self, backends: Sequence[str] | None = None, precisions: Sequence[str] | None = None
    ) -> tuple[ParityCase, ...]:
        """The cases of backends, those of other packages among them.

        Args:
            backends: names; all that can run here when left out.
            precisions: ``fp32``, ``fp16``; those that the bundle has when left out.

        Raises:
            UsageError: if a name is unknown, or there are no such graphs.
            BackendError: if a backend that is named cannot run here, or none can.
        """
        found, _ = combinations_of(self.bundle, backends, precisions, self._selection)
        return tuple(
            ParityCase(self, c.backend, c.precision, case, c.whole)
            for c in found
            for case in c.cases
        )

    def own_cases(self, precision: str = "fp32") -> tuple[ParityCase, ...]:
        """The cases for an implementation that does not use our runtime.

        Each gives an image and a scale; pass what you make of them to :meth:`ParityCase.check`.

        Args:
            precision: whose gate it has to meet, ``fp32`` or ``fp16``.
        """
        planned = plan_cases(self.bundle.manifest, self._selection, whole=False)
        return tuple(
            ParityCase(self, OWN, precision, case) for case in planned if case.mode == "staged"
        )

    def upscaler(self, backend: str, precision: str) -> Upscaler:
        """The bundle on a backend, loaded once."""
        key = (backend, precision)
        if key not in self._upscalers:
            self._upscalers[key] = load(self.bundle, backend, precision, threads=self._threads)
        return self._upscalers[key]


@dataclass(frozen=True)
class ParityCase:
    """One comparison: an image, a scale, a way of running, on a backend in a precision."""

    suite: ParitySuite
    backend: str
    precision: str
    case: Case
    whole: str = ""
    inference_precision: InferencePrecision = ""

    def __str__(self) -> str:
        """Words for a test's name: ``openvino-fp16-staged-odd-x2.7``."""
        shape, scale = self.case.shape.name, scale_text(self.case.scale).replace(" ", "")
        return f"{self.backend}-{self.precision}-{self.case.mode}-{shape}-{scale}"

    @property
    def image(self) -> Array:
        """The input, float32[N, 3, H, W] in [0, 1]."""
        return self.suite.reference.image(self.case.shape)

    @property
    def scale(self) -> tuple[float, float]:
        """The requested scale (scale_y, scale_x)."""
        return self.case.scale

    @property
    def size(self) -> tuple[int, int]:
        """The output's size (Ho, Wo)."""
        shape = self.case.shape
        return Grid.from_scale(shape.height, shape.width, self.case.scale).output_size

    @property
    def expected(self) -> Array:
        """What the reference makes of it, float32[N, 3, Ho, Wo], not clamped."""
        return self.suite.reference.output(self.case.shape, self.case.scale)

    def run(self) -> Array:
        """Run the case on its backend: float32[N, 3, Ho, Wo].

        Raises:
            BackendError: if the backend fails or returns NaN.
        """
        upscaler = self.suite.upscaler(self.backend, self.precision)
        if self.case.mode == "whole":
            return run_whole(upscaler, self.whole, self.image, self.scale)
        return View(upscaler.stages, self.image, policy_of(self.case.mode)).render(self.scale)

    def measure(self, output: Array | None = None) -> ParityResult:
        """The distance of an output from the reference, judged.

        Args:
            output: float[N, 3, Ho, Wo]; what :meth:`run` gives when left out.
        """
        found = self.run() if output is None else np.asarray(output)
        result = measure(self, self.case, found, self.expected)
        return judge(result, self.suite.gates)

    def check(self, output: Array | None = None) -> ParityResult:
        """The same, as a test.

        Raises:
            AssertionError: if the output is outside the gate; says by how much.
        """
        result = self.measure(output)
        if not result.passed:
            raise AssertionError(describe(result))
        return result
