from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scaleport.errors import ScaleError, UsageError
from scaleport.grid import (
    MAX_LENGTH,
    Axis,
    Grid,
    output_length,
    parse_scale,
    subpixel_centres,
)

LENGTHS = st.integers(1, 300)
# Enlargements up to 64 and reductions down to 1/64; exact arithmetic is slow, so not both long.
AXES = st.builds(
    lambda n, scale: (n, max(1, round(n * scale))),
    st.integers(1, 40),
    st.floats(1 / 64, 8),
) | st.sampled_from([(5, 320), (1, 64), (64, 1), (300, 7), (273, 4), (149, 401)])

untimed = settings(deadline=None)


def exact_position(n: int, N: int, a: int) -> Fraction:
    """u(a) from its meaning: the centre of output sample a, in input samples between borders."""
    return (a + Fraction(1, 2)) * Fraction(n, N) - Fraction(1, 2)


@untimed
@given(AXES)
def test_index_and_offset_are_the_exact_position(sizes: tuple[int, int]) -> None:
    n, N = sizes
    axis = Axis.whole(n, N)
    assert axis.index.dtype == np.int32
    assert axis.offset.dtype == np.float32
    assert axis.index.shape == axis.offset.shape == (N,)
    for a in range(N):
        u = exact_position(n, N, a)
        assert axis.index[a] == math.floor(u)
        assert 0 <= axis.offset[a] < 1
        assert abs(int(axis.index[a]) + Fraction(float(axis.offset[a])) - u) <= Fraction(1, 10**7)


@untimed
@given(st.integers(MAX_LENGTH - 1000, MAX_LENGTH), st.integers(1, MAX_LENGTH), st.data())
def test_offsets_do_not_lose_bits_on_long_axes(n: int, N: int, data: st.DataObject) -> None:
    a = data.draw(st.integers(0, N - 1))
    for length, other in ((n, N), (N, n)):
        at = a % other
        axis = Axis(length, other, at, at + 1)
        u = exact_position(length, other, at)
        assert axis.index[0] == math.floor(u)
        assert 0 <= axis.offset[0] < 1
        assert abs(Fraction(float(axis.offset[0])) - (u - math.floor(u))) <= Fraction(1, 10**7)


@untimed
@given(AXES, st.data())
def test_a_region_is_a_slice_of_the_whole(sizes: tuple[int, int], data: st.DataObject) -> None:
    n, N = sizes
    start = data.draw(st.integers(0, N - 1))
    stop = data.draw(st.integers(start + 1, N))
    origin = data.draw(st.integers(0, n - 1))
    whole = Axis.whole(n, N)
    part = whole.slice(start, stop, origin)
    np.testing.assert_array_equal(part.index, whole.index[start:stop] - origin)
    np.testing.assert_array_equal(part.offset, whole.offset[start:stop])
    assert part.scale == whole.scale
    assert part.slice(start, stop) == whole.slice(start, stop)


@untimed
@given(AXES)
def test_positions_are_symmetric(sizes: tuple[int, int]) -> None:
    n, N = sizes
    axis = Axis.whole(n, N)
    u = axis.index + axis.offset.astype(np.float64)
    np.testing.assert_allclose(u[::-1], n - 1 - u, atol=2e-7, rtol=0)


@untimed
@given(AXES, st.lists(st.integers(0, 300), max_size=5))
def test_owned_ranges_partition_the_output(sizes: tuple[int, int], cuts: list[int]) -> None:
    n, N = sizes
    axis = Axis.whole(n, N)
    borders = sorted({0, n, *(cut for cut in cuts if cut < n)})
    ranges = [axis.owned(a, b) for a, b in pairwise(borders)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == N
    for (first, last), (start, stop) in zip(pairwise(borders), ranges, strict=True):
        assert start <= stop
        for a in range(start, stop):  # in pixels between borders, where sample i covers i .. i + 1
            assert first <= exact_position(n, N, a) + Fraction(1, 2) < last
    for (_, stop), (start, _) in pairwise(ranges):
        assert stop == start


@untimed
@given(st.integers(1, 20), st.integers(1, 8), st.data())
def test_owned_keeps_blocks_together(n: int, scale: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n))
    last = data.draw(st.integers(first, n))
    assert Axis.whole(n, n * scale).owned(first, last) == (first * scale, last * scale)


@untimed
@given(AXES, st.data())
def test_span_covers_both_neighbours(sizes: tuple[int, int], data: st.DataObject) -> None:
    n, N = sizes
    start = data.draw(st.integers(0, N - 1))
    stop = data.draw(st.integers(start + 1, N))
    axis = Axis.whole(n, N).slice(start, stop)
    first, last = axis.span()
    needed = np.clip(np.concatenate([axis.index, axis.index + 1]), 0, n - 1)
    assert (first, last) == (needed.min(), needed.max() + 1)
    assert axis.slice(start, stop, origin=first).span() == (first, last)


@pytest.mark.parametrize(
    ("n", "N", "index", "offset"),
    [
        (1, 1, [0], [0]),
        (1, 2, [-1, 0], [0.75, 0.25]),
        (2, 1, [0], [0.5]),
        (3, 3, [0, 1, 2], [0, 0, 0]),
        (2, 4, [-1, 0, 0, 1], [0.75, 0.25, 0.75, 0.25]),
        (9, 3, [1, 4, 7], [0, 0, 0]),
    ],
)
def test_small_axes_by_hand(n: int, N: int, index: list[int], offset: list[float]) -> None:
    axis = Axis.whole(n, N)
    assert axis.index.tolist() == index
    assert axis.offset.tolist() == offset


def test_scale_64_stays_within_half_a_pixel_of_the_border() -> None:
    axis = Axis.whole(5, 320)
    u = axis.index + axis.offset.astype(np.float64)
    assert u[0] == pytest.approx(1 / 128 - 0.5)
    assert u[-1] == pytest.approx(4.5 - 1 / 128)
    assert set(axis.index.tolist()) == {-1, 0, 1, 2, 3, 4}


@untimed
@given(LENGTHS, st.decimals("0.01", "64", places=2))
def test_size_rule_follows_the_decimal_scale(n: int, scale: object) -> None:
    exact = math.floor(n * Fraction(str(scale)) + Fraction(1, 2))
    assert output_length(n, float(str(scale))) == max(1, exact)


@untimed
@given(st.integers(1, 20_000), st.decimals("0.001", "16", places=3))
def test_size_rule_follows_the_decimal_scale_of_long_axes(n: int, scale: object) -> None:
    exact = math.floor(n * Fraction(str(scale)) + Fraction(1, 2))
    assert output_length(n, float(str(scale))) == max(1, exact)


def test_sizes_by_hand() -> None:
    assert output_length(15, 2.3) == 35  # 34.5, which binary arithmetic sees just below
    assert output_length(5, 0.5) == 3
    assert output_length(1, 0.01) == 1
    assert output_length(48, math.pi) == 151
    grid = Grid.from_scale(13, 9, (2, 3.5))
    assert grid.output_size == grid.shape == (26, 32)
    assert grid.input_size == (13, 9)


@pytest.mark.parametrize(
    "scale",
    [
        0,
        -1,
        math.nan,
        math.inf,
        -math.inf,
        "two",
        None,
        (),
        (2,),
        (2, 3, 4),
        (2, 0),
        (2, "x"),
        [2j],
    ],
)
def test_bad_scales(scale: object) -> None:
    with pytest.raises(ScaleError):
        Grid.from_scale(8, 8, scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.0, -2.0, math.nan, math.inf, 1e300])
def test_bad_scales_of_an_axis(scale: float) -> None:
    with pytest.raises(ScaleError):
        output_length(8, scale)


def test_sizes_out_of_range() -> None:
    for make in (
        lambda: output_length(0, 2),
        lambda: output_length(MAX_LENGTH, 1.5),
        lambda: Grid.from_size(8, 8, 0, 8),
        lambda: Grid.from_size(0, 8, 8, 8),
        lambda: Grid.from_size(8, 8, MAX_LENGTH + 1, 8),
        lambda: Grid.from_size(MAX_LENGTH + 1, 8, 8, 8),
        lambda: Grid.from_scale(8, 8, 2).region(0, 0, 17, 16),
        lambda: Grid.from_scale(8, 8, 2).region(4, 0, 4, 16),
        lambda: Grid.from_scale(8, 8, 2).region(-1, 0, 4, 16),
        lambda: subpixel_centres(0),
    ):
        with pytest.raises(ScaleError):
            make()
    assert issubclass(ScaleError, UsageError)
    assert output_length(MAX_LENGTH, 1) == MAX_LENGTH


def test_parse_scale() -> None:
    assert parse_scale(2) == (2.0, 2.0)
    assert parse_scale([2, 3.5]) == (2.0, 3.5)
    assert parse_scale(np.float32(1.5)) == (1.5, 1.5)
    assert parse_scale(iter((2, 3))) == (2.0, 3.0)


@untimed
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 5), st.floats(0.3, 5), st.data())
def test_feeds_of_a_region(
    height: int, width: int, scale_y: float, scale_x: float, data: st.DataObject
) -> None:
    grid = Grid.from_scale(height, width, (scale_y, scale_x))
    rows, cols = grid.output_size
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, cols))
    origin = (data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1)))
    assume((y1 - y0, x1 - x0) != (rows, cols))
    region = grid.region(y0, x0, y1, x1, origin)
    assert region.shape == (y1 - y0, x1 - x0)
    assert region.output_size == grid.output_size
    whole, part = grid.feeds(), region.feeds()
    assert list(part) == ["row_index", "row_offset", "col_index", "col_offset", "scale"]
    np.testing.assert_array_equal(part["row_index"], whole["row_index"][y0:y1] - origin[0])
    np.testing.assert_array_equal(part["col_index"], whole["col_index"][x0:x1] - origin[1])
    np.testing.assert_array_equal(part["row_offset"], whole["row_offset"][y0:y1])
    np.testing.assert_array_equal(part["col_offset"], whole["col_offset"][x0:x1])
    np.testing.assert_array_equal(part["scale"], np.float32([rows / height, cols / width]))
    assert part["scale"].dtype == np.float32


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_subpixel_centres(scale: int) -> None:
    centres = subpixel_centres(scale)
    assert centres.dtype == np.float32
    # On [-1, 1] one pixel is 2 wide: the same positions as those of the grid of one pixel.
    axis = Axis.whole(1, scale)
    np.testing.assert_allclose(centres, 2 * (axis.index + axis.offset), atol=1e-7)
