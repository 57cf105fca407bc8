"""Which operations of a bundle's graphs a processor takes, as far as its maker says.

``targets.json`` beside this module holds the lists, each with where it comes from. Nothing runs
here: a listed operation can still be refused for its types or sizes, and only the target's own
compiler knows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal

import msgspec

from scaleport.bundle.manifest import Graph
from scaleport.bundle.reader import Bundle
from scaleport.errors import UsageError, did_you_mean
from scaleport.runtimes.kinds import operations_of

Verdict = Literal["supported", "not", "unknown"]

DYNAMIC: Final = "dynamic shapes"
"""What is called the operation of graphs whose shapes are dynamic."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A processor or runtime, and the operations that it is known to take.

    Attributes:
        name: what ``--target`` calls it.
        title: what tables call it.
        format: format of the graphs that are looked at.
        fixed_shapes: whether it takes no dynamic dimension.
        complete: whether the list is all that it takes; else what is not listed is unknown.
        sources: addresses of the lists.
        basis: what the list is, in words.
        operations: names of the format's operations.
        remarks: conditions of single operations.
    """

    name: str
    title: str
    format: str
    fixed_shapes: bool
    complete: bool
    sources: tuple[str, ...]
    basis: str
    operations: frozenset[str]
    remarks: dict[str, str]


@dataclass(frozen=True)
class TargetRow:
    """One kind of operation in the graphs of a bundle."""

    operation: str
    count: int
    verdict: Verdict
    remark: str = ""


@dataclass(frozen=True)
class TargetReport:
    """The operations of one precision of a bundle on a target."""

    target: Target
    precision: str
    rows: tuple[TargetRow, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """What the target does not take."""
        return tuple(row.operation for row in self.rows if row.verdict == "not")

    @property
    def unknown(self) -> tuple[str, ...]:
        """What nothing is known of."""
        return tuple(row.operation for row in self.rows if row.verdict == "unknown")


def targets() -> dict[str, Target]:
    """All of them, by name."""
    data = files("scaleport.validation").joinpath("targets.json").read_bytes()
    return {target.name: target for target in msgspec.json.decode(data, type=list[Target])}


def find_target(name: str) -> Target:
    """A target by name.

    Raises:
        UsageError: if there is none; the message lists the names.
    """
    known = targets()
    if name not in known:
        hint = did_you_mean(name.lower(), known)
        raise UsageError(f"unknown target {name!r}{hint}; known: {', '.join(known)}")
    return known[name]


def judge_target(bundle: Bundle, target: Target) -> tuple[TargetReport, ...]:
    """What a target takes of a bundle: one report for each precision.

    Args:
        bundle: the bundle; the graphs of the target's format are read, and not run.
        target: one of :func:`targets`.

    Raises:
        UsageError: if the bundle has no graphs of the target's format.
        BackendError: if the library that reads the format is missing.
        ArtifactError: if a file is damaged.
    """
    precisions = bundle.precisions(target.format)
    if not precisions:
        raise UsageError(
            f"{bundle.path} has no {target.format} graphs, which {target.title} runs; export "
            f"with --format {target.format}"
        )
    return tuple(_report(bundle, target, precision) for precision in precisions)


def _report(bundle: Bundle, target: Target, precision: str) -> TargetReport:
    counts: Counter[str] = Counter()
    dynamic = 0
    for graph in bundle.graphs(target.format, None, precision):
        counts.update(operations_of(bundle.file(graph.path), target.format))
        dynamic += _is_dynamic(graph)
    rows = [
        TargetRow(name, counts[name], _verdict(target, name), target.remarks.get(name, ""))
        for name in sorted(counts)
    ]
    if target.fixed_shapes and dynamic:
        remark = "export with --static"
        rows.insert(0, TargetRow(DYNAMIC, dynamic, "not", remark))
    return TargetReport(target, precision, tuple(rows))


def _verdict(target: Target, name: str) -> Verdict:
    if name in target.operations:
        return "supported"
    return "not" if target.complete else "unknown"


def _is_dynamic(graph: Graph) -> bool:
    tensors = (*graph.inputs, *graph.outputs)
    return any(isinstance(size, str) for tensor in tensors for size in tensor.shape)
