"""Degradations by name, for scores on pictures as people have them: ``jpeg:75``, ``noise:10``."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scaleport.aliases import Uint8Array
from scaleport.errors import UsageError
from scaleport.imaging import degradation as steps

Apply = Callable[[Uint8Array, float, np.random.Generator], Uint8Array]


@dataclass(frozen=True)
class Kind:
    """A degradation that has one number.

    Attributes:
        unit: what the number is.
        low: smallest number that makes sense.
        high: largest.
        example: a number that errors and help show.
        apply: what it does to uint8[H, W] or [H, W, 3].
    """

    unit: str
    low: float
    high: float
    example: str
    apply: Apply


KINDS = {
    "jpeg": Kind("quality", 1, 100, "75", lambda x, q, _: steps.compress(x, "jpeg", int(q))),
    "webp": Kind("quality", 1, 100, "75", lambda x, q, _: steps.compress(x, "webp", int(q))),
    "noise": Kind("levels of 255", 0, 128, "10", steps.gaussian_noise),
    "poisson": Kind("levels of 255 at white", 0.1, 128, "10", steps.poisson_noise),
    "blur": Kind(
        "pixels", 0.1, 20, "1", lambda x, s, _: steps.blur(x, steps.gaussian_kernel(s, s))
    ),
}
"""All of them, by name."""


@dataclass(frozen=True)
class Degradation:
    """Steps that an LR image goes through in turn before it is upscaled."""

    steps: tuple[tuple[str, float], ...] = ()

    def __call__(self, lr: Uint8Array, name: str) -> Uint8Array:
        """Degrade uint8[H, W] or [H, W, 3]; the noise depends on the image's name alone."""
        for number, (kind, amount) in enumerate(self.steps):
            rng = np.random.default_rng([zlib.crc32(name.encode()), number])
            lr = KINDS[kind].apply(lr, amount, rng)
        return lr

    def words(self) -> list[str]:
        """The steps as they are written on the command line."""
        return [f"{kind}:{amount:g}" for kind, amount in self.steps]


def parse_degradation(words: Sequence[str]) -> Degradation:
    """Read ``KIND:NUMBER`` words.

    Raises:
        UsageError: if a kind is unknown or a number is missing or out of range.
    """
    found = []
    for word in words:
        name, _, text = word.partition(":")
        kind = KINDS.get(name)
        if kind is None:
            raise UsageError(f"unknown degradation {name!r}; known: {', '.join(KINDS)}")
        try:
            amount = float(text)
        except ValueError:
            amount = float("nan")
        if not kind.low <= amount <= kind.high:
            raise UsageError(
                f"{name} takes a number from {kind.low:g} to {kind.high:g} ({kind.unit}), "
                f"as in {name}:{kind.example}; got {word!r}"
            )
        if kind.unit == "quality" and amount != int(amount):
            raise UsageError(f"the quality of {name} is a whole number, got {text}")
        found.append((name, amount))
    return Degradation(tuple(found))
