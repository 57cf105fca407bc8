"""Whether precision is lost with the distance from the origin.

A graph that computes coordinates as floats loses their fraction as the image grows: at reduced
precision its last rows are worse than its first. An image whose halves mirror each other shows
both ends the same content, so what remains between them is a matter of position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from scaleport.bundle.manifest import Graph, Manifest
from scaleport.grid import Grid
from scaleport.runtimes.base import Backend, GraphFile, GraphSource
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import View
from scaleport.validation.metrics import max_abs
from scaleport.validation.parity.cases import policy_of
from scaleport.validation.parity.reference import Reference
from scaleport.validation.pictures import mirrored_picture

MAX_RATIO: Final = 2.0
"""Gate of :attr:`Drift.ratio`."""

# Errors of float32 rounding have no trend worth a ratio.
_FLOOR: Final = 1e-6


@dataclass(frozen=True)
class Drift:
    """Largest absolute error in the first and in the last output rows."""

    first: float
    last: float

    @property
    def ratio(self) -> float:
        """Last over first; errors below 1e-6 count as that."""
        return max(self.last, _FLOOR) / max(self.first, _FLOOR)

    @property
    def passed(self) -> bool:
        """Whether the last rows are about as good as the first; False for NaN."""
        return bool(np.isfinite(self.last)) and self.ratio < MAX_RATIO


@dataclass(frozen=True)
class RevisedSource:
    """The graphs of another source under a manifest that says something else of them.

    For what a model is capable of beyond what it declares, e.g. sizes or a receptive field.
    """

    source: GraphSource
    revised: Manifest

    @property
    def manifest(self) -> Manifest:
        """The manifest in place of the source's own."""
        return self.revised

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Those of the source."""
        return self.source.graphs(backend, precision)

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """That of the source."""
        return self.source.file(backend, stage, precision)

    def checkpoint(self) -> Path:
        """That of the source."""
        return self.source.checkpoint()


def _untiled(stages: Stages, height: int) -> Stages:
    """The same graphs without the declared limit of the height, which would make tiles of it."""
    manifest = stages.manifest
    if manifest.height.max >= height:
        return stages
    limits = msgspec.structs.replace(manifest.height, max=height)
    revised = msgspec.structs.replace(manifest, height=limits)
    return stages.of(RevisedSource(stages.source, revised))


def row_drift(
    upscaler: Upscaler, height: int = 600, width: int = 64, scale: float = 1.5, rows: int = 64
) -> Drift:
    """Compare the errors at both ends of a tall image that is rendered in one call.

    Args:
        upscaler: the model, backend and precision to look at.
        height: LR rows, even; more than the model declares are still rendered in one call.
        width: LR columns.
        scale: scale of both axes, in the model's range.
        rows: output rows that count as an end.

    Raises:
        ScaleError: if the scale is outside the model's range.
        BackendError: if the backend fails or returns NaN.
    """
    image = mirrored_picture(height, width)
    found = View(_untiled(upscaler.stages, height), image, policy_of("staged")).render(scale)
    reference = Reference(upscaler.stages.source)
    expected = reference.upscale(image, Grid.from_scale(height, width, scale))
    return Drift(
        first=max_abs(found[:, :, :rows], expected[:, :, :rows]),
        last=max_abs(found[:, :, -rows:], expected[:, :, -rows:]),
    )
