"""Which output size a scale, a size or limits come to, and the scale of the graph that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from scaleport.bundle.manifest import Manifest
from scaleport.errors import ScaleError
from scaleport.grid import Grid, output_length, parse_scale, whole_numbers
from scaleport.runtimes.stages import Stages

Size = tuple[int, int]


def checked_grid(
    manifest: Manifest,
    height: int,
    width: int,
    scale: float | Iterable[float] | None,
    size: tuple[int, int] | None,
) -> Grid:
    """The grid of a request, within the range that the model declares.

    Raises:
        ScaleError: if not exactly one of ``scale`` and ``size`` is given, or it is out of range.
    """
    if (scale is None) == (size is None):
        raise ScaleError("give either scale or size")
    low, high = manifest.scale.min, manifest.scale.max
    if scale is not None:
        pair = parse_scale(scale)
        if not all(low <= value <= high for value in pair):
            shown = f"{pair[0]:g}" if pair[0] == pair[1] else f"({pair[0]:g}, {pair[1]:g})"
            raise ScaleError(
                f"scale {shown} is outside the range of this model, {low:g} to {high:g}"
                f"{_what_can(pair, low, high)}"
            )
        return Grid.from_scale(height, width, pair)
    assert size is not None
    size = _size(size)
    for n, N in zip((height, width), size, strict=True):
        if not output_length(n, low) <= N <= output_length(n, high):
            raise ScaleError(
                f"{N} pixels from {n} is outside the range of this model, x{low:g} to x{high:g}"
                f"{_what_can((N / n,), low, high)}"
            )
    return Grid.from_size(height, width, *size)


def _size(size: tuple[int, int]) -> tuple[int, int]:
    tall, wide = whole_numbers(size, 2, "a size is (height, width) in whole pixels")
    return tall, wide


def _what_can(wanted: Iterable[float], low: float, high: float) -> str:
    """What an error adds about scales that this model does not make."""
    from scaleport.ready import larger_scales

    if max(wanted) > high:
        return f"; {larger_scales(max(wanted))}"
    return "; to make a picture smaller, use an image editor" if low >= 1 else ""


def native_scale(manifest: Manifest, grid: Grid) -> int:
    """Smallest native scale of a lattice model that reaches both axes of an output.

    Raises:
        ScaleError: if there is none.
    """
    for scale in sorted(manifest.scale.native):
        if all(n * scale >= N for n, N in zip(grid.input_size, grid.output_size, strict=True)):
            return scale
    raise ScaleError(f"this model renders x{max(manifest.scale.native)} at most")


def frozen_scale(stages: Stages, grid: Grid) -> int | None:
    """The integer scale of an output that a query model has a graph of its own for, if any.

    Such a graph makes whole crops, like one of a lattice model; the output has to be that lattice
    exactly, in both directions.
    """
    (height, width), output = grid.input_size, grid.output_size
    scale = output[0] // height
    exact = output == (height * scale, width * scale)
    return scale if exact and stages.has(f"render_x{scale}") else None


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
