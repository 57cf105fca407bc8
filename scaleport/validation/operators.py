"""Which operations of a bundle's graphs a backend takes, and what each of them runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaleport.bundle.reader import Bundle
from scaleport.errors import BackendError, ScaleportError, UsageError, one_line
from scaleport.runtimes.base import offers, source_format
from scaleport.runtimes.registry import get_backend


@dataclass(frozen=True)
class Coverage:
    """The operations of one graph on one backend.

    Attributes:
        operations: how many there are, after what the backend folds on loading.
        kinds: different kinds among them.
        places: operations by what runs them, e.g. a provider of ONNX Runtime.
        unsupported: kinds that the backend does not take.
        note: why nothing is known, if nothing is.
    """

    format: str
    precision: str
    stage: str
    operations: int = 0
    kinds: int = 0
    places: Mapping[str, int] | None = None
    unsupported: tuple[str, ...] = ()
    note: str = ""


def coverage_of(bundle: Bundle, backend: str, precision: str) -> tuple[Coverage, ...]:
    """Operations of every stage of a bundle on a backend, whether it can run them here or not.

    Whole graphs are left out: they are the stages once more.

    Raises:
        UsageError: if this is not known of the backend.
    """
    if not is_known(backend):
        raise UsageError(f"backend {backend!r} does not tell which operations it runs")
    runner = get_backend(backend)
    form = source_format(runner)
    found = []
    for graph in bundle.graphs(form, None, precision):
        if graph.stage.startswith("whole"):
            continue
        note = ""
        try:
            made = runner.operations(bundle.file(graph.path), graph)
        except ImportError as error:
            note = f"{error.name} is not installed"
        except ScaleportError as error:
            note = one_line(error)
        if note:
            found.append(Coverage(form, precision, graph.stage, note=note))
            continue
        counts = (made.count, made.kinds, made.places, made.unsupported)
        found.append(Coverage(form, precision, graph.stage, *counts))
    return tuple(found)


def is_known(backend: str) -> bool:
    """Whether coverage can be told of a backend."""
    try:
        return offers(get_backend(backend), "operations")
    except BackendError:  # a plug-in that does not load
        return False
