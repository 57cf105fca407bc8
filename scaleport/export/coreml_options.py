"""What a Core ML package is made for: sizes, batch, system, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from scaleport.bundle.manifest import SizeRange, continued, continued_most, split_dimension
from scaleport.errors import ExportError, UsageError
from scaleport.grid import output_length
from scaleport.models.base import Stage

_ANY_SIZE = SizeRange(min=1, opt=256, max=4096)


@dataclass(frozen=True)
class CoreMLOptions:
    """What a package is made for. Core ML refuses sizes outside these ranges.

    Args:
        height: LR height in pixels.
        width: LR width in pixels.
        max_scale: largest scale; output sizes range from 1 to the largest LR size times this.
        max_batch: largest batch; 1 fixes the batch, and the runtime loops over it.
        deployment_target: the oldest system that must run it; iOS17 includes macOS 14.
        int8_weights: store weights as int8, one scale per output channel; they are widened where
            they are used, so that activations and arithmetic keep the types of the stage.
        fixed: the length of every named dimension, for programs of one shape; empty for ranges.
        sizes: heights and widths that a program of one image takes, the usual ones first; with
            more than one they are enumerated.
    """

    height: SizeRange = _ANY_SIZE
    width: SizeRange = _ANY_SIZE
    max_scale: float = 8.0
    max_batch: int = 16
    deployment_target: Literal["iOS17", "iOS18"] = "iOS17"
    int8_weights: bool = False
    fixed: Mapping[str, int] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        for axis in (self.height, self.width):
            if not 1 <= axis.min <= axis.opt <= axis.max:
                raise UsageError("a size range needs 1 <= min <= opt <= max")
        if self.max_scale < 1 or self.max_batch < 1:
            raise UsageError("the largest scale and the largest batch must be at least 1")
        if self.deployment_target not in ("iOS17", "iOS18"):
            raise UsageError(f"unknown deployment target {self.deployment_target!r}")

    def enumerates(self, stage: Stage) -> bool:
        """Whether the program of a stage takes several sizes, each by itself."""
        alone = [port.name for port in stage.inputs] == ["image"]
        return len(self.sizes) > 1 and alone and not getattr(stage.module, "fixed_grid", False)

    def lengths(self, name: str) -> tuple[int, int, int]:
        """Smallest, typical and largest length of a named dimension.

        Raises:
            ExportError: if the name is not one of :mod:`scaleport.tensor`.
        """
        if name in self.fixed:
            return self.fixed[name], self.fixed[name], self.fixed[name]
        axes = {"H": self.height, "W": self.width, "Ho": self.height, "Wo": self.width}
        name, window = split_dimension(name)
        if name == "N":
            return 1, 1, self.max_batch
        if name == "S":
            return 1, 1, max(1, int(np.ceil(self.max_scale)))
        if name not in axes:
            raise ExportError(f"no range is known for the dimension {name!r}")
        axis = axes[name]
        if name in ("H", "W"):
            least, usual = continued(axis.min, window), continued(axis.opt, window)
            return least, usual, continued_most(axis.max, window)
        return 1, axis.opt, output_length(axis.max, self.max_scale)
