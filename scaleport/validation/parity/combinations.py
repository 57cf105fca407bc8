"""What a parity proof runs: backends and precisions, each with its cases of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import msgspec

from scaleport.bundle.manifest import WHOLE, InferencePrecision, Precision, scale_of
from scaleport.bundle.reader import Bundle
from scaleport.errors import BackendError, UsageError
from scaleport.runtimes import registry
from scaleport.runtimes.base import Backend, precision_text, stored_format
from scaleport.validation.parity.cases import Case, Scale, Selection, plan_cases, refused_scales
from scaleport.validation.parity.gates import NOT_RUN, PRECISIONS, Gates


class Run(Protocol):
    """Anything that names a backend and a precision."""

    @property
    def backend(self) -> str:
        """Name of the backend."""
        ...

    @property
    def precision(self) -> str:
        """Precision of its graphs."""
        ...

    @property
    def inference_precision(self) -> InferencePrecision:
        """What was computed in instead; empty for the same."""
        ...


@dataclass(frozen=True)
class Combination:
    """One backend in one precision, and what it is to run."""

    backend: str
    precision: str
    whole: str
    cases: tuple[Case, ...]
    refused: tuple[Scale, ...]
    inference_precision: InferencePrecision = ""

    @property
    def title(self) -> str:
        """Words for progress."""
        return f"{self.backend} {precision_text(self.precision, self.inference_precision)}"

    @property
    def count(self) -> int:
        """How many results it gives."""
        return len(self.cases) + len(self.refused)


def run_of(run: Run) -> tuple[str, str, str]:
    """Backend, precision and inference precision: what identifies a run in a manifest."""
    return run.backend, run.precision, run.inference_precision


def combinations_of(
    bundle: Bundle,
    backends: Sequence[str] | None,
    precisions: Sequence[str] | None,
    selection: Selection,
    inference_precision: str = "",
) -> tuple[list[Combination], dict[str, str]]:
    """What to run, and per backend that is left out the reason."""
    _check_precisions(precisions or ())
    combinations, left_out = [], {}
    names = registry.backend_names() if backends is None else list(dict.fromkeys(backends))
    for name in names:
        backend = registry.get_backend(name)
        wanted = [p for p in precisions or PRECISIONS if p in backend.precisions]
        there = [p for p in bundle.precisions(stored_format(backend)) if p in wanted]
        reason = _obstacle(bundle, backend, bool(there), inference_precision)
        if reason and backends is not None:
            registry.require(name)
            raise UsageError(f"{name} was asked for and cannot be compared: {reason}")
        if reason:
            left_out[name] = NOT_RUN + " ".join(reason.split())
            continue
        for precision in there:
            whole = whole_stage(bundle, name, precision)
            only = backend.declared_sizes_only
            cases = plan_cases(bundle.manifest, selection, only, bool(whole))
            refused = refused_scales(bundle.manifest)
            # What graphs are written in anyway is no other precision.
            other = "" if inference_precision == precision else inference_precision
            chosen = msgspec.convert(other, InferencePrecision)
            combinations.append(Combination(name, precision, whole, cases, refused, chosen))
    if not combinations:
        raise BackendError(f"nothing of {bundle.path} can be run here: {left_out}")
    return combinations, left_out


def _check_precisions(precisions: Sequence[str]) -> None:
    for precision in precisions:
        if precision not in get_args(Precision):
            known = ", ".join(PRECISIONS)
            raise UsageError(f"unknown precision {precision!r}; known: {known}")
        Gates().of(precision)


def _obstacle(bundle: Bundle, backend: Backend, there: bool, inference_precision: str) -> str:
    """Why a backend is not compared, whether or not its graphs are there; empty if it is."""
    if not there:
        return _no_graphs(bundle, stored_format(backend))
    found = backend.availability()
    if not found.usable:
        return found.reason
    return registry.refusal_of(backend, inference_precision)


def plan_of(bundle: Bundle, run: Run, selection: Selection) -> tuple[Case, ...]:
    """The cases that a backend and precision have in a bundle's grid."""
    whole = whole_stage(bundle, run.backend, run.precision)
    only = registry.get_backend(run.backend).declared_sizes_only
    return plan_cases(bundle.manifest, selection, only, bool(whole))


def _no_graphs(bundle: Bundle, form: str) -> str:
    skipped = bundle.manifest.skipped.get(form)
    why = f", skipped at export: {skipped}" if skipped else ""
    return f"the bundle has no {form} graphs to compare{why}"


def whole_stage(bundle: Bundle, name: str, precision: str) -> str:
    """The stage of a backend's whole graph, see :func:`run_whole`; empty if it has none.

    Of graphs of fixed shape it is what their names begin with.
    """
    backend = registry.get_backend(name)
    there = {graph.stage for graph in bundle.graphs(backend.graph_format, None, precision)}
    if any(scale_of(stage) is not None for stage in there):
        return WHOLE
    return backend.whole_stage if backend.whole_stage in there else ""
