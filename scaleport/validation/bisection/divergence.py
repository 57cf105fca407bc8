"""How far one tensor is from another, and the first of many that is too far."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.runtimes.inside import Inner

TOLERANCES: Final = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference of a tensor by precision, as a share of its largest value or of 1."""


@dataclass(frozen=True)
class Statistics:
    """Distance of a tensor from the reference. All numbers are finite or None.

    ``max_abs``, ``mean_abs`` and ``psnr`` (dB, the reference's largest value as peak) are over the
    elements that are finite on both sides, None where there are none or, of the PSNR, where all
    are equal. ``worst`` is the index of the worst element; one that is finite on one side only is
    worse than any other.
    """

    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    max_abs: float | None
    mean_abs: float | None
    psnr: float | None
    not_finite: int
    worst: tuple[int, ...] | None
    found_there: str
    expected_there: str
    found_range: tuple[float, float] | None
    expected_range: tuple[float, float] | None


@dataclass(frozen=True)
class Divergence:
    """The first tensor of a graph that is outside the tolerance."""

    stage: str
    tensor: str
    module: str
    operation: str
    reference_operation: str
    statistics: Statistics
    reason: str

    @property
    def place(self) -> str:
        """Stage and PyTorch module, e.g. ``encode: encoder.body.0.conv1``."""
        return f"{self.stage}: {self.module or '(the stage itself)'}"


@dataclass(frozen=True)
class Compared:
    """What comparing the tensors of one graph came to."""

    stage: str
    tensors: int
    """Tensors of the graph."""
    matched: int
    """Those of them that hold numbers and have a tensor of the same name in the reference."""
    modules: int
    """PyTorch modules that the matched ones come from."""
    worst: float
    """Largest share of the tolerance that a tensor before the first divergence uses."""
    divergence: Divergence | None = None


def statistics(found: Array, expected: Array) -> Statistics:
    """Measure a tensor; shapes may differ, and either may hold NaN or infinity."""
    ranges = _range(found), _range(expected)
    empty = Statistics(
        found.shape, expected.shape, None, None, None, 0, None, "", "", ranges[0], ranges[1]
    )
    if found.shape != expected.shape or not found.size:
        return empty
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    # Infinity where infinity belongs, as in a mask, is right.
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(a - b), np.where(same, 0.0, np.inf))
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    measured = error[finite]
    psnr = None
    if measured.size:
        mean_square = float(np.mean(measured**2))
        peak = float(np.abs(b[finite]).max())
        if mean_square > 0 and peak > 0:
            psnr = 10 * math.log10(peak * peak / mean_square)
    return Statistics(
        shape=found.shape,
        expected_shape=expected.shape,
        max_abs=float(measured.max()) if measured.size else None,
        mean_abs=float(measured.mean()) if measured.size else None,
        psnr=psnr,
        not_finite=int((~finite & ~same).sum()),
        worst=worst,
        found_there=f"{a[worst]:.6g}",
        expected_there=f"{b[worst]:.6g}",
        found_range=ranges[0],
        expected_range=ranges[1],
    )


def _range(array: Array) -> tuple[float, float] | None:
    values = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    return (float(values.min()), float(values.max())) if values.size else None


def share(found: Array, expected: Array, tolerance: float) -> float:
    """How much of its tolerance a tensor uses: above 1 is outside, infinite for other shapes.

    Integers have to be equal.
    """
    if found.shape != expected.shape:
        return math.inf
    if not found.size:
        return 0.0
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else math.inf
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    difference = np.abs(a[finite] - b[finite])
    if not np.isfinite(difference).all():
        return math.inf
    peak = max(1.0, float(np.abs(b[finite]).max()))
    return float(difference.max()) / (tolerance * peak)


def without_collisions(values: Iterable[Inner], reference: Mapping[str, Any]) -> list[Inner]:
    """The values without those that only happen to have the name of a tensor of the reference.

    Operations that a converter adds are named by it, after their kind and a number, and so may be
    called like a node of PyTorch. They are told by another kind, shape or type; shapes of a
    stage's tensors follow from its inputs, so that no fault is lost by it.
    """
    kept = []
    for item in values:
        twin = reference.get(item.name)
        if twin is not None:
            numbered = re.fullmatch(rf"{re.escape(item.operation)}_\d+", item.name)
            foreign = numbered is not None and not twin.operation.startswith(item.operation)
            same = item.value.shape == twin.value.shape
            if foreign or not same or item.value.dtype.kind != twin.value.dtype.kind:
                kept.append(replace(item, name=""))
                continue
        kept.append(item)
    return kept


def names_agree(values: Iterable[Inner], reference: Mapping[str, Any]) -> bool:
    """Whether equal names mean equal tensors.

    A graph of another version of the exporter has the same names for other tensors. It shows in
    their rank, their kind of number, or their module, none of which a wrong value changes.
    """
    for item in values:
        twin = reference.get(item.name)
        if twin is None:
            continue
        floats = item.value.dtype.kind == "f", twin.value.dtype.kind == "f"
        if item.value.ndim != twin.value.ndim or floats[0] != floats[1]:
            return False
        path = _path(item)
        # An output of a part has its own name in a whole graph, without the part's.
        same = path == twin.module or twin.module.endswith(f": {path}")
        if path and twin.module and not same:
            return False
    return True


def _path(item: Inner) -> str:
    """Module of a value as the reference names it; that of a whole graph begins with its part."""
    if not item.module:
        return ""
    part, slash, _ = item.name.partition("/")
    return f"{part}: {item.module}" if slash else item.module


def matched_by_module(
    values: Iterable[Inner], reference: Mapping[str, Any], outputs: Iterable[str]
) -> dict[str, Any]:
    """A reference for a graph whose names mean nothing: by module, kind of number and shape.

    Of several tensors of one module and shape the nearest is taken, since calls of a module may
    come in another order. Values outside any module have no twin, outputs keep theirs.

    Args:
        values: of the graph.
        reference: by name.
        outputs: names of the graph's outputs, which are declared and so always mean the same.
    """
    groups: dict[tuple[str, str, tuple[int, ...]], list[Any]] = {}
    for tensor in reference.values():
        if tensor.module and tensor.value.dtype.kind == "f":
            groups.setdefault((tensor.module, "f", tensor.value.shape), []).append(tensor)
    found = {name: reference[name] for name in outputs if name in reference}
    for item in values:
        path = _path(item)
        near = groups.get((path, item.value.dtype.kind, item.value.shape), [])
        # One that a converter adds inside a module has no twin; its module's result has.
        if item.name not in found and near and _is_result(item):
            used = [share(item.value, tensor.value, 1.0) for tensor in near]
            found[item.name] = near[used.index(min(used))]
    return found


def _is_result(item: Inner) -> bool:
    return item.operation in ("Conv", "Convolution", "GroupConvolution", "Gemm", "Relu")


def first_divergence(
    stage: str, values: Iterable[Inner], reference: Mapping[str, Any], tolerance: float
) -> Compared:
    """Compare the tensors of a graph with those of the reference, in the order of the graph.

    Everything before the first one that is too far is right, so its operation is the culprit.

    Args:
        stage: name for the result.
        values: what the backend computed, in the order of computation.
        reference: :class:`scaleport.validation.bisection.traced.Tensor` by name.
        tolerance: see :data:`TOLERANCES`.
    """
    count = matched = 0
    modules: set[str] = set()
    worst = 0.0
    for item in values:
        count += 1
        twin = reference.get(item.name)
        # On which side of a limit a number falls may differ by a rounding that changes nothing;
        # where it changes something, the tensor that is chosen by it shows.
        if twin is None or twin.value.dtype.kind == "b":
            continue
        matched += 1
        modules.add(twin.module)
        used = share(item.value, twin.value, tolerance)
        if used > 1:
            found = statistics(item.value, twin.value)
            found_at = Divergence(
                stage,
                item.name,
                twin.module or item.module,
                item.operation,
                twin.operation,
                found,
                _reason(found, item.value, twin.value, tolerance),
            )
            return Compared(stage, count, matched, len(modules), worst, found_at)
        worst = max(worst, used)
    return Compared(stage, count, matched, len(modules), worst)


def _reason(found: Statistics, value: Array, expected: Array, tolerance: float) -> str:
    if found.shape != found.expected_shape:
        return f"its shape is {list(found.shape)}, {list(found.expected_shape)} is expected"
    if found.not_finite:
        return f"{found.not_finite} of {value.size} elements are NaN or infinite"
    if expected.dtype.kind != "f":
        return f"{int((value != expected).sum())} of {value.size} integers differ"
    peak = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max()))
    return f"max abs {found.max_abs:.3g} is over {tolerance * peak:.3g}"
