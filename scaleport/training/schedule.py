"""When things happen in a run: learning rates over its legs, and what follows a step."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import msgspec

from scaleport.training.recipe import Optimiser, Recipe

_LOG_EVERY = 100


class Leg(msgspec.Struct, frozen=True):
    """One schedule of a run, kept in the checkpoint's history."""

    made_at: int
    """Step at which it was laid out."""
    start: int
    """Step at which its schedule begins."""
    end: int
    lr: float
    """Its highest rate."""
    minutes: float = 0.0
    """What it was laid out over instead of steps; 0 for steps."""


def continued(legs: list[Leg], step: int, end: int, lr: float) -> list[Leg]:
    """The history of a run that goes on at ``step`` and shall end at ``end``.

    A finished leg is followed by a new one, which begins a schedule of its own; one that was
    interrupted is laid out anew where its end has changed.
    """
    last = legs[-1]
    if step == last.end < end:
        return [*legs, Leg(step, step, end, lr)]
    if end != last.end:
        return [*legs, Leg(step, last.start, end, last.lr)]
    return legs


def learning_rate(step: float, leg: Leg, options: Optimiser) -> float:
    """Rate of a step, counted from the beginning of the run; a fraction where time counts."""
    done = step - leg.start
    if done < options.warmup:
        risen = min(1.0, (done + 1) / options.warmup)
        return options.first_lr + (leg.lr - options.first_lr) * risen
    if options.schedule == "step":
        return leg.lr * options.gamma ** sum(done >= m for m in options.milestones)
    share = (done - options.warmup) / max(1, leg.end - leg.start - options.warmup)
    low = min(options.final_lr, leg.lr)
    return low + 0.5 * (leg.lr - low) * (1 + math.cos(math.pi * share))


class Due(NamedTuple):
    """What follows a step."""

    measures: bool
    logs: bool
    saves: bool


def due_after(step: int, done: bool, recipe: Recipe, can_measure: bool) -> Due:
    """What follows a step.

    Args:
        step: number of steps done.
        done: whether that was the last one; its state is saved elsewhere.
        recipe: says how often to measure and to save.
        can_measure: whether there are held-out images.
    """
    measures = can_measure and (done or step % recipe.validation.every == 0)
    logs = measures or done or step % _LOG_EVERY == 0
    return Due(measures, logs, step % recipe.checkpoint_every == 0 and not done)


class Budget:
    """Time to train for: the schedule of a recipe is laid over it instead of over steps.

    Args:
        minutes: all of it, over all processes that continue one another.
        spent: seconds that earlier processes took of it.
    """

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.minutes = minutes
        self._before = spent
        self._begun: float | None = None

    def begin(self) -> None:
        """From now on time counts."""
        self._begun = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds taken so far."""
        now = 0.0 if self._begun is None else time.monotonic() - self._begun
        return self._before + now

    @property
    def share(self) -> float:
        """The part that is spent, at most 1."""
        return min(1.0, self.spent / (60 * self.minutes))


def legs_to_json(legs: list[Leg]) -> list[dict[str, Any]]:
    """The history as JSON values."""
    return [msgspec.to_builtins(leg) for leg in legs]
