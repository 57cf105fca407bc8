"""Checking what a session is fed, the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import UsageError
from scaleport.runtimes.base import Feeds, TensorSpec, Value, host


def checked(feeds: Feeds, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Feeds as contiguous arrays in host memory, complete and of the right type and shape.

    Raises:
        UsageError: if one is missing, unknown, or of the wrong type, rank or fixed dimension.
    """
    values = checked_values(feeds, specs)
    return {name: np.ascontiguousarray(host(value)) for name, value in values.items()}


def checked_values(feeds: Feeds, specs: Sequence[TensorSpec]) -> dict[str, Value]:
    """Feeds where they are, complete and of the right type and shape, in the order of ``specs``.

    Raises:
        UsageError: if one is missing, unknown, or of the wrong type, rank or fixed dimension.
    """
    unknown = sorted(set(feeds) - {spec.name for spec in specs})
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"unknown input {', '.join(unknown)}; this graph takes {names}")
    result: dict[str, Value] = {}
    for spec in specs:
        if spec.name not in feeds:
            raise UsageError(f"input {spec.name!r} is missing")
        value = feeds[spec.name]
        if not hasattr(value, "dtype"):
            value = np.asarray(value)
        if value.dtype != spec.dtype:
            raise UsageError(f"input {spec.name!r} must be {spec.dtype}, got {value.dtype}")
        shape = tuple(value.shape)
        fits = len(shape) == len(spec.shape) and all(
            want in (-1, have) for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            want = "x".join("?" if d < 0 else str(d) for d in spec.shape)
            have = "x".join(str(d) for d in shape) or "a number"
            raise UsageError(f"input {spec.name!r} must have shape {want}, got {have}")
        result[spec.name] = value
    return result
