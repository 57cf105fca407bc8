"""Which layers stay float so that the loss is within the budget.

Layers are ranked by their own effect: the error of the output when one layer alone is int8. The
worst are kept float, as few as the budget allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scaleport.aliases import Array
from scaleport.calibration.layers import Layer
from scaleport.calibration.trial import Judge, Quantised, Score, Workbench
from scaleport.progress import Steps

# A model without error has no PSNR to lose: 120 dB stand for that.
_EXACT = 1e-12
_CURVE = (0.0, 0.125, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Effect:
    """A layer and what it costs when it alone is int8, in dB, at the scale where it costs most.

    That is the loss of PSNR if the error that int8 adds were independent of the model's own.
    """

    layer: Layer
    loss: float


@dataclass(frozen=True)
class Loss:
    """What int8 costs on one backend: PSNR in dB on held-out images, float32 minus int8."""

    backend: str
    scale: float
    fp32: float
    int8: float

    @property
    def loss(self) -> float:
        """Decibels lost; negative where int8 happens to be better."""
        return self.fp32 - self.int8


@dataclass(frozen=True)
class Point:
    """One point of the curve: how many layers are int8, and the worst loss in dB."""

    quantised: int
    layers: int
    loss: float

    @property
    def fraction(self) -> float:
        """Fraction of the layers that are int8."""
        return self.quantised / max(1, self.layers)


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Attributes:
        effects: all candidate layers, the worst first.
        kept: how many of them, from the start, stay float.
        losses: per backend and scale, of the chosen plan.
        curve: what was measured on the way, by fraction.
        within: whether all losses are within the budget.
    """

    effects: tuple[Effect, ...]
    kept: int
    losses: tuple[Loss, ...]
    curve: tuple[Point, ...]
    within: bool

    @property
    def quantised(self) -> Quantised:
        """Keys of the layers that are int8."""
        return frozenset(effect.layer.key for effect in self.effects[self.kept :])


@dataclass
class Search:
    """The search for one model.

    Attributes:
        bench: makes trials.
        judge: scores them.
        budget: most decibels that may be lost, at every scale and on every backend.
        least: smallest fraction of the layers that must be int8.
        backends: judged by all of these; the first one leads the search.
        step: told what is being done.
    """

    bench: Workbench
    judge: Judge
    budget: float
    least: float
    backends: tuple[str, ...]
    step: Steps
    _float: dict[str, tuple[Score, ...]] = field(default_factory=dict)

    def rank(self, layers: Sequence[Layer]) -> tuple[Effect, ...]:
        """Effects of layers, the worst first."""
        expected = [list(images) for images in self.judge.outputs(self.bench.trial())]
        own = [
            float(np.mean([_squared(a, b) for a, b in zip(found, truth, strict=True)]))
            for found, truth in zip(expected, self.judge.truths(), strict=True)
        ]
        effects = []
        for number, layer in enumerate(layers):
            self.step(f"effect of layer {number + 1} of {len(layers)}")
            found = self.judge.outputs(self.bench.trial(frozenset([layer.key])))
            added = [
                float(np.mean([_squared(a, b) for a, b in zip(images, wanted, strict=True)]))
                for images, wanted in zip(found, expected, strict=True)
            ]
            ratio = max(a / max(b, _EXACT) for a, b in zip(added, own, strict=True))
            effects.append(Effect(layer, 10 * math.log10(1 + ratio)))
        return tuple(sorted(effects, key=lambda effect: (-effect.loss, effect.layer.key)))

    def losses(self, quantised: Quantised, backend: str) -> tuple[Loss, ...]:
        """Loss at every judged scale on a backend."""
        if backend not in self._float:
            self._float[backend] = self.judge.scores(self.bench.trial(backend=backend))
        found = self.judge.scores(self.bench.trial(quantised, backend))
        return tuple(
            Loss(backend, a.scale, a.psnr, b.psnr)
            for a, b in zip(self._float[backend], found, strict=True)
        )

    def run(self, layers: Sequence[Layer]) -> Outcome:
        """Keep as few layers float as the budget allows."""
        effects = self.rank(layers)
        count = len(effects)
        # Keeping more than this would not be an int8 model.
        most = int(count * (1 - self.least))
        lead = self.backends[0]
        known: dict[int, tuple[Loss, ...]] = {}

        def losses(kept: int) -> tuple[Loss, ...]:
            if kept not in known:
                self.step(f"loss with {count - kept} of {count} layers in int8")
                quantised = frozenset(effect.layer.key for effect in effects[kept:])
                known[kept] = self.losses(quantised, lead)
            return known[kept]

        low, high = 0, most
        while low < high:
            # The first try is everything: most models need nothing kept.
            middle = low if low not in known else (low + high) // 2
            if worst(losses(middle)) <= self.budget:
                high = middle
            else:
                low = middle + 1
        kept = low
        for share in _CURVE:
            losses(min(most, round(share * count)))
        found = losses(kept)
        others: tuple[Loss, ...] = ()
        while True:
            quantised = frozenset(effect.layer.key for effect in effects[kept:])
            found = losses(kept)
            others = tuple(
                loss for name in self.backends[1:] for loss in self.losses(quantised, name)
            )
            if worst((*found, *others)) <= self.budget or kept >= most:
                break
            kept = min(most, kept + max(1, count // 16))
        points = tuple(
            Point(count - at, count, worst(measured)) for at, measured in sorted(known.items())
        )
        total = (*found, *others)
        within = count > 0 and worst(total) <= self.budget
        return Outcome(effects, kept, total, points, within)


def _squared(a: Array, b: Array) -> float:
    return float(np.mean((a.astype(np.float64) - b) ** 2))


def worst(losses: Sequence[Loss]) -> float:
    """The largest loss in dB; infinite if there is none, or one is not a number."""
    values = [loss.loss for loss in losses]
    return max(values) if values and np.isfinite(values).all() else float("inf")
