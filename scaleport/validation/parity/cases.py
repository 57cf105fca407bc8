"""The parity grid: which image shapes, scales and ways of running are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from scaleport.bundle.manifest import SMALL, Manifest, scale_of
from scaleport.errors import UsageError
from scaleport.runtimes.view import TilePolicy

Mode = Literal["staged", "tiled", "whole"]
Selection = Literal["full", "quick"]
Scale = tuple[float, float]

UNSEEN: Final = 3.37
"""A scale that no export traces and no recipe trains."""

SCALES: Final[tuple[Scale, ...]] = (
    (1.0, 1.0),
    (1.3, 1.3),
    (2.0, 2.0),
    (2.7, 2.7),
    (3.0, 3.0),
    (math.pi, math.pi),
    (4.0, 4.0),
    (8.0, 8.0),
    (2.0, 3.5),
    (UNSEEN, UNSEEN),
)
"""(scale_y, scale_x) of the grid."""

REFUSED: Final = "refused, as declared"
"""Note of a result whose scale is outside the declared range and was refused, as it must be."""

TILE: Final = 20
"""LR rows or columns of one tile in mode ``tiled``."""

_UNTILED: Final = TilePolicy(tile=0, render_pixels=1 << 30)
# Bands of few pixels, so that one tile is also rendered in several calls.
_TILED: Final = TilePolicy(tile=TILE, render_pixels=2000)

# Beyond this many output pixels per input pixel only the small shapes are run.
_COSTLY: Final = 20.0
_SMALL: Final = ("odd", "prime", "one-window", "pair")
_LARGE: Final = "large"
_DECLARED: Final = "declared"
_MOST: Final = 512
"""Longest side of an image that the grid takes, for the sake of time."""
# What a tile leaves out of the image, at least, so that a crop really is one.
_CROPPED: Final = 24

_QUICK: Final[tuple[tuple[str, Scale], ...]] = (
    ("one-window", (1.0, 1.0)),
    ("odd", (1.3, 1.3)),
    ("prime", (2.0, 2.0)),
    ("tall", (2.7, 2.7)),
    ("wide", (3.0, 3.0)),
    ("odd", (math.pi, math.pi)),
    ("one-window", (4.0, 4.0)),
    ("prime", (8.0, 8.0)),
    ("pair", (1.3, 1.3)),
    ("pair", (2.0, 2.0)),
    (_LARGE, (2.0, 3.5)),
    ("odd", (UNSEEN, UNSEEN)),
)


@dataclass(frozen=True)
class Shape:
    """A named LR size in pixels, and how many images go in at once."""

    name: str
    height: int
    width: int
    batch: int = 1


@dataclass(frozen=True)
class Case:
    """One comparison: an image shape, a requested scale and a way of running."""

    shape: Shape
    scale: Scale
    mode: Mode


_USUAL: Final = (
    # 15 * 1.3 and 15 * 2.7 end in .5: sizes on a tie, which decimal scales miss in binary.
    Shape("odd", 15, 21),
    Shape("prime", 13, 17),
    Shape("tall", 40, 7),
    Shape("wide", 7, 40),
    Shape("one-window", 8, 8),
    Shape("pair", 9, 14, batch=2),
)


def policy_of(mode: Mode) -> TilePolicy:
    """Tile sizes of a mode; ``whole`` has none and gets those of ``staged``."""
    return _TILED if mode == "tiled" else _UNTILED


def shapes_of(manifest: Manifest) -> tuple[Shape, ...]:
    """The shapes of the grid, smallest sensible to larger than a tile.

    The largest grows with the receptive field: a tile's crop must leave some of the image out,
    or tiles would be compared with the whole image under another name.
    """
    fixed = manifest.fixed_size
    if fixed is not None:
        return _fixed_shapes(manifest, *fixed)
    beyond = manifest.receptive_field + _CROPPED
    usual = (*_USUAL, Shape(_LARGE, max(50, beyond), max(43, beyond)))
    if any(_within(manifest, shape) for shape in usual):
        return usual
    # Graphs of fixed sizes, or of large ones only: one shape that all of them take.
    height, width = (
        min(max(n, limits.min), limits.max)
        for n, limits in ((usual[0].height, manifest.height), (usual[0].width, manifest.width))
    )
    return (*usual, Shape(_DECLARED, height, width)) if max(height, width) <= _MOST else usual


def _fixed_shapes(manifest: Manifest, height: int, width: int) -> tuple[Shape, ...]:
    """Shapes for graphs of one shape: that shape, smaller pictures, and one that takes tiles.

    Pictures that a network only approximates in tiles, or continued, are left out, as they are for
    graphs of any shape.
    """
    shapes = [Shape(_DECLARED, height, width)]
    stages = {graph.stage for graphs in manifest.graphs.values() for graph in graphs}
    if f"encode{SMALL}" in stages:
        shapes = [*(s for s in _USUAL if s.height < height and s.width < width), *shapes]
    if manifest.tiling == "exact":
        shapes.append(Shape(_LARGE, height + 11, width + 6))
    return tuple(shapes)


def whole_scales(manifest: Manifest) -> tuple[float, ...]:
    """Scales of the whole graphs of a fixed shape, each with a graph of its own."""
    stages = {graph.stage for graphs in manifest.graphs.values() for graph in graphs}
    return tuple(sorted(s for s in map(scale_of, stages) if s is not None))


def split_scales(manifest: Manifest) -> tuple[tuple[Scale, ...], tuple[Scale, ...]]:
    """The grid's scales within the range that a model declares, and those beyond it."""
    low, high = manifest.scale.min, manifest.scale.max
    inside = tuple(s for s in SCALES if all(low <= value <= high for value in s))
    return inside, tuple(s for s in SCALES if s not in inside)


def refused_scales(manifest: Manifest) -> tuple[Scale, ...]:
    """Scales that a model must refuse: the grid's own beyond its range, and one past each end."""
    _, outside = split_scales(manifest)
    low, high = manifest.scale.min * 0.9, manifest.scale.max * 1.1
    return (*outside, (low, low), (high, high))


def plan_cases(
    manifest: Manifest,
    selection: Selection = "full",
    declared_sizes_only: bool = False,
    whole: bool = True,
) -> tuple[Case, ...]:
    """The cases of one backend and precision, those of one shape and mode together.

    Args:
        manifest: the bundle's; its scale range, tiling and receptive field shape the grid.
        selection: ``full``, or ``quick``: every scale and every shape once.
        declared_sizes_only: whether the backend takes only sizes that the manifest declares, as
            engines do, which are built for them.
        whole: whether there is a whole graph to run.

    Raises:
        UsageError: if the selection is unknown, or nothing is left to run.
    """
    if selection not in get_args(Selection):
        raise UsageError(f"unknown selection {selection!r}; known: full, quick")
    scales, _ = split_scales(manifest)
    fixed = manifest.fixed_size is not None
    # With fixed shapes each whole graph takes one shape and one scale.
    modes: list[Mode] = ["staged", "whole"] if whole and not fixed else ["staged"]
    if manifest.tiling == "exact":
        modes.append("tiled")
    cases = [
        Case(shape, scale, mode)
        for shape in shapes_of(manifest)
        if not declared_sizes_only or fixed or _within(manifest, shape)
        for mode in modes
        for scale in scales
        if _is_run(shape.name, scale, mode, selection)
    ]
    if fixed:
        cases = _of_fixed(manifest, cases, whole)
    if not cases:
        raise UsageError(
            f"the declared sizes and scales of {manifest.name} leave no parity case to run"
        )
    return tuple(cases)


def _of_fixed(manifest: Manifest, cases: list[Case], whole: bool) -> list[Case]:
    """The cases of graphs of fixed shape, with those of whole graphs."""
    frozen = [(s, s) for s in whole_scales(manifest)]
    if manifest.tiling == "not-allowed":
        only = frozen or [(2.0, 2.0)]
        cases = [case for case in cases if case.scale in only]
    if not whole:
        return cases
    declared = next(s for s in shapes_of(manifest) if s.name == _DECLARED)
    return [*cases, *(Case(declared, scale, "whole") for scale in frozen)]


def _is_run(name: str, scale: Scale, mode: Mode, selection: Selection) -> bool:
    if mode == "tiled" and name != _LARGE:
        return False
    if selection == "quick":
        # One scale would not show a tile that is wrong between native scales only.
        if name == _DECLARED:
            return mode != "tiled"
        return (name, scale) in _QUICK or (mode == "tiled" and scale in {(2.0, 2.0), (2.7, 2.7)})
    return scale[0] * scale[1] <= _COSTLY or name in _SMALL


def _within(manifest: Manifest, shape: Shape) -> bool:
    """Whether a shape is of a size that the manifest declares."""
    pairs = ((manifest.height, shape.height), (manifest.width, shape.width))
    return all(limits.min <= n <= limits.max for limits, n in pairs)
