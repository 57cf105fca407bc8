"""Output sizes that keep the shape of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from scaleport.errors import ScaleError

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """Limits of an output size that keeps the shape of the picture, in pixels; 0 for no limit.

    Attributes:
        width: most columns.
        height: most rows.
        longest: most pixels of the longer side.

    Raises:
        ScaleError: if a limit is below 0, or there is none.
    """

    width: int = 0
    height: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        """Check the limits."""
        limits = (self.width, self.height, self.longest)
        if min(limits) < 0 or not any(limits):
            raise ScaleError("a size is a number of pixels above 0")

    def size(self, height: int, width: int) -> Size:
        """The output size (height, width) of a picture of a size.

        The side that meets its limit meets it exactly; the other is rounded half up.
        """
        pairs = ((self.height, height), (self.width, width), (self.longest, max(height, width)))
        scale = min(Fraction(limit, side) for limit, side in pairs if limit)
        tall, wide = (max(1, int(side * scale + Fraction(1, 2))) for side in (height, width))
        return tall, wide


def fitted(size: Size | Fit | None, input_size: Size) -> Size | None:
    """The size (height, width) that a request comes to for a picture; None for a scale."""
    return size.size(*input_size) if isinstance(size, Fit) else size


def stretch_note(input_size: Size, output_size: Size) -> tuple[str, ...]:
    """What to say of a size that changes the shape of a picture by more than rounding does."""
    (height, width), (tall, wide) = input_size, output_size
    other = Fit(width=wide).size(height, width)[0], Fit(height=tall).size(height, width)[1]
    if abs(other[0] - tall) <= 1 or abs(other[1] - wide) <= 1:
        return ()
    return (
        f"stretched: {wide}x{tall} is not the shape of {width}x{height}; "
        f"--fit {wide}x{tall} keeps it",
    )
