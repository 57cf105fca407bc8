"""What a tensor at the border of a graph is: one description for all that speak of it.

Networks declare the inputs and outputs of their stages with it, the manifest of a bundle and the
record of an engine store it, and the session of every backend reports it. A dimension is a number,
or the name of a dynamic one:

* ``N`` batch, ``H`` ``W`` LR size, ``Ho`` ``Wo`` output size, ``S`` integer scale;
* ``H8`` ``W8`` LR size continued to whole windows of 8, of any number;
* the name that a library gives, of graphs that others have made;
* :data:`UNNAMED` where a library only says that the dimension is dynamic.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

ElementType = Literal["float32", "float16", "int32", "int64"]
"""NumPy's and PyTorch's name of what the elements are."""
ELEMENT_TYPES: Final[tuple[ElementType, ...]] = get_args(ElementType)

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._+-]*\Z"
Name = Annotated[str, msgspec.Meta(max_length=128, pattern=NAME_PATTERN)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Shape: TypeAlias = tuple[int | str, ...]

BATCH: Final = "N"
"""Name of the dimension of the batch."""
UNNAMED: Final = "any"
"""Name of a dynamic dimension that has none. Two of them need not be of equal length."""


class TensorSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One graph input or output. A dimension is a number or the name of a dynamic one."""

    name: Name
    dtype: ElementType
    shape: Annotated[tuple[Dimension | Name, ...], msgspec.Meta(max_length=8)]


def dimension(given: object, name: str | None = None) -> int | str:
    """A dimension as a library gives it.

    Args:
        given: its length, a negative number if it is dynamic, its name, or None.
        name: its name, where a library keeps names apart.

    Returns:
        The length, or the name; :data:`UNNAMED` if it has none or one that no manifest may hold.
    """
    if isinstance(given, int) and given >= 0:
        return given
    named = given if isinstance(given, str) else name or ""
    return named if len(named) <= 128 and re.match(NAME_PATTERN, named) else UNNAMED


def element_type(name: str) -> ElementType | None:
    """An element type by NumPy's name; None if no graph may have such a tensor at its border."""
    return name if name in ELEMENT_TYPES else None
