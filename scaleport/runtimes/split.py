"""Batches that a session does not take at once: split, run, and joined again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from scaleport.bundle.manifest import Graph, Tensor
from scaleport.runtimes.arrays import HOST, Arrays, arrays_of
from scaleport.runtimes.base import Feeds, Session, Values

BATCH: Final = "N"
"""What manifests call the dimension of the batch."""


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
