"""Training recipes: one YAML file says everything about a run but where the images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from scaleport.errors import UsageError


class Scales(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What scales to train on: integers from ``set``, or real numbers from ``range``.

    One scale is drawn per step, for the whole batch.
    """

    set: tuple[int, ...] = ()
    range: tuple[float, float] | None = None


class Optimiser(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Adam and its learning rate over the steps of the run."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 0
    """Steps over which the rate rises linearly from 0."""
    schedule: Literal["cosine", "step"] = "cosine"
    final_lr: float = 1e-6
    """Where the cosine ends."""
    milestones: tuple[int, ...] = ()
    """Steps after which the ``step`` schedule multiplies the rate by ``gamma``."""
    gamma: float = 0.5
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""


class Downscale(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Reduce some crops of lossily compressed files before use, to hide their artefacts."""

    probability: float = 0.0
    smallest: float = 0.5


class Validation(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Images kept out of training and scored on the way."""

    images: int = 8
    crop: int = 240
    """Side of the central HR crop that is scored, in pixels."""
    every: int = 1000


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One training run."""

    model: dict[str, Any]
    """Configuration for :func:`scaleport.models.build_network`."""
    steps: int
    scales: Scales
    seed: int = 0
    batch: int = 16
    patch: int = 48
    """Side of the LR patches in pixels."""
    queries: int = 2304
    """Random output pixels per patch for a query network; 0 for all of them."""
    optimiser: Optimiser = Optimiser()
    ema: float = 0.0
    """Decay of the moving average of the weights; 0 for none."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; parameters stay float32."""
    downscale: Downscale = Downscale()
    validation: Validation = Validation()
    checkpoint_every: int = 500

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UsageError: naming the first wrong setting.
        """
        scales, low_high = self.scales.set, self.scales.range
        optimiser, validation = self.optimiser, self.validation
        rules = {
            "give either scales.set or scales.range": bool(scales) != (low_high is not None),
            "scales.set holds integers of at least 1": all(s >= 1 for s in scales),
            "scales.range is [low, high], 1 <= low <= high": low_high is None
            or 1 <= low_high[0] <= low_high[1],
            "steps, batch, patch and checkpoint_every are at least 1": min(
                self.steps, self.batch, self.patch, self.checkpoint_every
            )
            >= 1,
            "seed and queries are not negative": self.seed >= 0 and self.queries >= 0,
            "ema is at least 0 and below 1": 0 <= self.ema < 1,
            "optimiser.lr is above 0, the others are not negative": optimiser.lr > 0
            and min(optimiser.warmup, optimiser.final_lr, optimiser.clip_norm) >= 0,
            "downscale.probability is 0 to 1, smallest above 0 and at most 1": 0
            <= self.downscale.probability
            <= 1
            and 0 < self.downscale.smallest <= 1,
            "validation.images is not negative, crop and every at least 1": validation.images >= 0
            and min(validation.crop, validation.every) >= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                raise UsageError(f"wrong recipe: {rule}")


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UsageError: if the file cannot be read, is not YAML, has an unknown key or a wrong value.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read recipe {path}: {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"recipe {path} is not YAML: {reason}") from error
    try:
        # Not strict: YAML 1.1 reads 1e-3 as text.
        recipe = msgspec.convert(raw, Recipe, strict=False)
        recipe.check()
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error
    return recipe
