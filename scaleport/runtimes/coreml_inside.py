"""Core ML programs: every tensor and every operation, by the numpy evaluator on every system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scaleport.aliases import Array
from scaleport.mil import Evaluator, read_program
from scaleport.mil.call import OPERATIONS
from scaleport.runtimes.inside import Inner, Operations

if TYPE_CHECKING:
    from scaleport.mil.program import Operation


def inner(path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
    """Evaluate a program operation by operation and return all its tensors."""
    found: list[Inner] = []

    def observe(operation: Operation, name: str, value: Array) -> None:
        found.append(Inner(name, operation.kind, value.copy()))

    Evaluator(read_program(path)).run(feeds, observe)
    return found


def operations(path: Path) -> Operations:
    """Count a program's operations by whether the evaluator has them."""
    there = read_program(path).operations
    kinds = {operation.kind for operation in there}
    known = sum(operation.kind in OPERATIONS for operation in there)
    missing = tuple(sorted(kinds - set(OPERATIONS)))
    return Operations(len(there), len(kinds), {"MIL evaluator": known}, missing)
