"""Operations whose result jumps: where a rounding error decides, both answers are right.

A sample's position may come from the network itself, and then anything can lie at the edge of a
pixel: a backend's sum, a rounding away from PyTorch's, is rounded down to the next whole number.
That number, and what is gathered by it, differs wholly, while the result hardly changes. Where a
backend's operation is right for what it was given, PyTorch is run again with the backend's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.runtimes.inside import Inner
from scaleport.validation.bisection.divergence import Compared
from scaleport.validation.bisection.traced import Tensor

STEPS: Final[dict[str, Callable[[Array], Array]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "trunc": np.trunc,
}
"""Operations of PyTorch that jump, and what each makes of an array."""


def own_choice(
    compared: Compared, values: Iterable[Inner], reference: Mapping[str, Tensor]
) -> Array | None:
    """The values of a first divergence that is none: a step taken rightly from an input in bounds.

    Args:
        compared: a comparison, with or without a divergence.
        values: what the backend computed, under the names of the graph.
        reference: what PyTorch computed, by the same names.

    Returns:
        The backend's values, in the reference's type; None if the operation does not jump, if its
        input is not among the values, or if the values are not what the operation makes of it.
    """
    found = compared.divergence
    if found is None:
        return None
    twin = reference[found.tensor]
    step = STEPS.get(twin.operation)
    by_name = {item.name: item.value for item in values}
    given = by_name.get(twin.source)
    if step is None or given is None or twin.source not in reference:
        return None
    made = by_name[found.tensor]
    if made.shape != twin.value.shape or given.shape != made.shape:
        return None
    if not np.array_equal(step(given), made):
        return None
    return made.astype(twin.value.dtype)


def remark(tensor: str, made: Array, expected: Array) -> str:
    """What is said of a choice that was followed."""
    differ = int((made != expected).sum())
    return (
        f"{tensor}: {differ} of {made.size} values fall on the other side of a step, as what is "
        "rounded there does within the tolerance; PyTorch goes on from them"
    )
