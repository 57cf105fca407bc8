"""Which backend a search for a diverging layer runs on: one that shows tensors inside of graphs."""

from __future__ import annotations

from scaleport.bundle.reader import Bundle
from scaleport.errors import BackendError, UsageError
from scaleport.export.formats import FORMATS
from scaleport.runtimes import registry
from scaleport.runtimes.base import Backend, offers, source_format


def searched(bundle: Bundle, backend: str, precision: str) -> str:
    """The name of the backend to search on.

    Args:
        bundle: the bundle that is searched.
        backend: the name asked for; empty for the first that can run here.
        precision: of the graphs.

    Raises:
        UsageError: if the backend shows no tensors, or none that does can run here.
        BackendError: if it is a plug-in that does not load.
    """
    if not backend:
        return _first(bundle, precision)
    runner = registry.get_backend(backend)
    if not offers(runner, "inner"):
        reason = " (it is the reference)" if runner.runs_checkpoint else ""
        known = [found.name for found in with_tensors()]
        raise UsageError(
            f"no tensors can be read from inside {backend!r}{reason}; known: {', '.join(known)}"
        )
    return backend


def with_tensors() -> list[Backend]:
    """Backends that show the tensors inside of a graph, in the order of an export's formats."""
    found = []
    for name in registry.ranked_names():
        try:
            backend = registry.get_backend(name)
        except BackendError:  # a plug-in that does not load
            continue
        if offers(backend, "inner"):
            found.append(backend)
    order = list(FORMATS)
    return sorted(found, key=lambda b: (*order, b.graph_format).index(b.graph_format))


def _first(bundle: Bundle, precision: str) -> str:
    found = with_tensors()
    for backend in found:
        there = bundle.graphs(source_format(backend), None, precision)
        if there and backend.availability().usable:
            return backend.name
    raise UsageError(
        f"{bundle.path} has no {precision} graphs that can be searched here; backends that can "
        f"are {', '.join(backend.name for backend in found)}"
    )
