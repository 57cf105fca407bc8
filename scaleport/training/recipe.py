"""Training recipes: one YAML file says everything about a run but where the images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from scaleport.errors import UsageError, one_line

_Struct = msgspec.Struct


class Scales(_Struct, forbid_unknown_fields=True, frozen=True):
    """What scales to train on: integers from ``set``, or real numbers from ``range``."""

    set: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    per: Literal["step", "sample", "rank"] = "step"
    """What shares one scale: the whole batch, one sample, or the share of one process."""


class Loss(_Struct, forbid_unknown_fields=True, frozen=True):
    """A loss on pixels, and ``fft`` times L1 on the real and imaginary parts of their spectra."""

    pixels: Literal["l1", "mse"] = "l1"
    """L1, or the mean squared error that PSNR is made of: for a last leg at a low rate."""
    fft: float = 0.0
    last_mse: float = 0.0
    """Share of the schedule, at its end, in which the mean squared error alone is minimised."""


class Optimiser(_Struct, forbid_unknown_fields=True, frozen=True):
    """Adam and its learning rate over the steps of the run."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    """Decoupled from the gradient (AdamW)."""
    warmup: int = 0
    """Steps over which the rate rises linearly from ``first_lr``."""
    first_lr: float = 0.0
    schedule: Literal["cosine", "step"] = "cosine"
    final_lr: float = 1e-6
    """Where the cosine ends."""
    milestones: tuple[int, ...] = ()
    """Steps after which the ``step`` schedule multiplies the rate by ``gamma``."""
    gamma: float = 0.5
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""


class Downscale(_Struct, forbid_unknown_fields=True, frozen=True):
    """Reduce some HR crops by a random factor before use, to hide their compression artefacts."""

    probability: float = 0.0
    smallest: float = 0.5
    largest: float = 1.0
    only_lossy: bool = True
    """Whether only crops of JPEG files are reduced."""
    levels: int = 0
    """Number of evenly spaced factors to draw from; 0 for any. Few factors are faster where
    batches are made on a GPU, which keeps the weights of each."""


class Blur(_Struct, forbid_unknown_fields=True, frozen=True):
    """Gaussian and sinc filters."""

    probability: float = 0.0
    sigma: tuple[float, float] = (0.2, 1.0)
    """Standard deviation in pixels, drawn evenly."""
    anisotropic: float = 0.5
    """Share with two standard deviations at a random angle."""
    sinc: float = 0.1
    """Share of circular low-pass filters, which leave rings."""


class Resize(_Struct, forbid_unknown_fields=True, frozen=True):
    """To another size and back, each way with a filter drawn at random."""

    probability: float = 0.0
    factor: tuple[float, float] = (0.7, 1.4)


class Noise(_Struct, forbid_unknown_fields=True, frozen=True):
    """Gaussian and Poisson noise."""

    probability: float = 0.0
    sigma: tuple[float, float] = (1.0, 15.0)
    """Standard deviation in levels of 255, of white for Poisson noise."""
    poisson: float = 0.3
    """Share of Poisson noise."""
    gray: float = 0.4
    """Share of noise that is the same in all channels."""


class Compression(_Struct, forbid_unknown_fields=True, frozen=True):
    """JPEG, its blocks at a random place, and WebP."""

    probability: float = 0.0
    quality: tuple[int, int] = (40, 95)
    webp: float = 0.1
    """Share of WebP."""
    full_colour: float = 0.3
    """Share of JPEG with colours at full resolution."""


class Degradations(_Struct, forbid_unknown_fields=True, frozen=True):
    """What happens to a picture beside its reduction, in random order.

    After arXiv 2103.14006 and 2107.10833. HR stays as it is: the network learns to undo it all.
    """

    clean: float = 1.0
    """Share of samples that are reduced and nothing else."""
    twice: float = 0.0
    """Share of the others that go through all steps before their reduction too."""
    other_filter: float = 0.0
    """Share of the others that are reduced by another filter than ``degradation``."""
    blur: Blur = Blur()
    resize: Resize = Resize()
    noise: Noise = Noise()
    compression: Compression = Compression()

    def rules(self) -> dict[str, bool]:
        """What must hold, by the words that say so."""
        blur, resize, noise, codec = self.blur, self.resize, self.noise, self.compression
        shares = (
            *(self.clean, self.twice, self.other_filter),
            *(blur.probability, blur.anisotropic, blur.sinc, resize.probability),
            *(noise.probability, noise.poisson, noise.gray),
            *(codec.probability, codec.webp, codec.full_colour),
        )
        return {
            "shares and probabilities of degradations are 0 to 1": all(0 <= p <= 1 for p in shares),
            "sigma and factor of degradations are [low, high], 0 < low <= high": all(
                0 < low <= high for low, high in (blur.sigma, resize.factor, noise.sigma)
            ),
            "compression.quality is [low, high], 1 <= low <= high <= 100": 1
            <= codec.quality[0]
            <= codec.quality[1]
            <= 100,
        }


class Validation(_Struct, forbid_unknown_fields=True, frozen=True):
    """Images kept out of training and scored on the way."""

    images: int = 8
    crop: int = 240
    """Side of the central HR crop that is scored, in pixels."""
    every: int = 1000
    scales: tuple[int, ...] = ()
    """Left out: those of 2, 3 and 4 that are trained on."""


class Recipe(_Struct, forbid_unknown_fields=True, frozen=True):
    """One training run."""

    model: dict[str, Any] | str
    """Configuration for :func:`scaleport.models.build_network`, or the name of a composition."""
    steps: int
    scales: Scales
    paper: str = ""
    """Where the recipe comes from, and in what it differs."""
    seed: int = 0
    batch: int = 16
    """Samples per step, over all processes together."""
    patch: int = 48
    """Side of the LR patches in pixels."""
    queries: int = 2304
    """Output pixels per patch that a query network is trained on, 0 for all: random ones, or a
    random square where it cannot compute pixels one by one."""
    degradation: Literal["matlab", "pil"] = "matlab"
    """How LR is made: as MATLAB's ``imresize`` of 8-bit images, or as Pillow's bicubic."""
    degradations: Degradations = Degradations()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    ema: float = 0.0
    """Decay of the moving average of the weights; 0 for none."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe; parameters stay float32."""
    downscale: Downscale = Downscale()
    validation: Validation = Validation()
    checkpoint_every: int = 500
    """Steps between saved states: what a killed process loses at most."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UsageError: naming the first wrong setting.
        """
        scales, low_high = self.scales.set, self.scales.range
        optimiser, validation, down = self.optimiser, self.validation, self.downscale
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
            "loss.fft is not negative": self.loss.fft >= 0,
            "loss.last_mse is 0 to 1": 0 <= self.loss.last_mse <= 1,
            "optimiser.lr is above 0, the others are not negative": optimiser.lr > 0
            and min(
                optimiser.warmup,
                optimiser.first_lr,
                optimiser.final_lr,
                optimiser.clip_norm,
                optimiser.weight_decay,
            )
            >= 0,
            "downscale.levels is not negative": down.levels >= 0,
            "downscale.probability is 0 to 1, 0 < smallest <= largest <= 1": 0
            <= down.probability
            <= 1
            and 0 < down.smallest <= down.largest <= 1,
            "validation.images is not negative, the others are at least 1": validation.images >= 0
            and min(validation.crop, validation.every, *validation.scales) >= 1,
            **self.degradations.rules(),
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
        reason = one_line(error)
        raise UsageError(f"recipe {path} is not YAML: {reason}") from error
    try:
        # Not strict: YAML 1.1 reads 1e-3 as text.
        recipe = msgspec.convert(raw, Recipe, strict=False)
        recipe.check()
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error
    return recipe
