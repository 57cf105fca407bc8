"""What a session is fed: checked, and split into the batches that it takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.bundle.manifest import Graph, Tensor
from scaleport.errors import UsageError
from scaleport.runtimes.arrays import HOST, Arrays, arrays_of
from scaleport.runtimes.base import Feeds, Session, TensorSpec, Value, Values, host

BATCH: Final = "N"
"""What manifests call the dimension of the batch."""


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


def split_run(
    session: Session, graph: Graph, feeds: Feeds, keep: Collection[str], most: int
) -> Values:
    """Run a session, in several calls if it takes fewer images than it is fed.

    Args:
        session: the session.
        graph: its declared inputs and outputs, which say what has a batch.
        feeds: inputs of any batch.
        keep: outputs that may stay where they were computed.
        most: most images of one call; 0 for no limit.

    Raises:
        UsageError, BackendError, OutOfMemoryError: as :meth:`Session.run` does.
    """
    batched = [t.name for t in graph.inputs if _has_batch(t) and t.name in feeds]
    count = max((feeds[name].shape[0] for name in batched), default=1)
    if any(tensor.shape[0] == 1 for tensor in graph.inputs if _has_batch(tensor)):
        most = 1  # a graph of fixed shape
    if not most or count <= most:
        return session.run(feeds, keep)
    arrays = arrays_of(session)
    parts = [
        session.run(_images(feeds, batched, slice(start, start + most), count, arrays), keep)
        for start in range(0, count, most)
    ]
    return _joined(parts, graph, keep, arrays)


def _joined(parts: Sequence[Values], graph: Graph, keep: Collection[str], arrays: Arrays) -> Values:
    """The outputs of several calls as those of one."""
    joined = {t.name for t in graph.outputs if _has_batch(t)}
    whole = dict(parts[0])
    for name in joined.intersection(whole):
        place = arrays if name in keep else HOST
        natives = [place.unwrap(part[name]) for part in parts]
        whole[name] = place.wrap(place.concatenated(natives, 0))
    return whole


def _images(
    feeds: Feeds, batched: Collection[str], some: slice, count: int, arrays: Arrays
) -> Feeds:
    """What some images of a batch of ``count`` are fed."""
    return {
        name: arrays.wrap(arrays.crop(arrays.unwrap(value), (some,)))
        if name in batched and value.shape[0] == count
        else value
        for name, value in feeds.items()
    }


def _has_batch(tensor: Tensor) -> bool:
    """Whether the first dimension is the batch: by its name, or in a graph of fixed shape as 1."""
    shape = tensor.shape
    return bool(shape) and (shape[0] == BATCH or (shape[0] == 1 and len(shape) > 2))
