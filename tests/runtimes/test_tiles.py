"""Cutting: every sample is owned once, and crops reach as far as they must."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaleport.errors import UsageError
from scaleport.grid import Axis, output_length
from scaleport.runtimes.tiling import Span, bands, cut

LENGTHS = st.integers(1, 400)
TILES = st.integers(0, 90)
HALOS = st.integers(0, 60)


@given(LENGTHS, TILES, HALOS)
def test_spans_own_every_sample_once(length, tile, halo):
    spans = cut(length, tile, halo)
    owned = [i for span in spans for i in range(span.start, span.stop)]
    assert owned == list(range(length))
    assert all(span.start < span.stop for span in spans)


@given(LENGTHS, TILES, HALOS)
def test_crops_reach_the_halo_or_the_border(length, tile, halo):
    for span in cut(length, tile, halo):
        assert span.crop_start == max(0, span.start - halo)
        assert span.crop_stop == min(length, span.stop + halo)


@given(LENGTHS, TILES, HALOS, st.integers(1, 70))
def test_crops_begin_and_end_at_whole_steps(length, tile, halo, step):
    spans = cut(length, tile, halo, step)
    owned = [i for span in spans for i in range(span.start, span.stop)]
    assert owned == list(range(length))
    assert len(spans) == len(cut(length, tile, halo))
    for span in spans:
        assert 0 < span.stop - span.start <= (tile or length)
        assert span.crop_start % step == 0
        assert 0 <= max(0, span.start - halo) - span.crop_start < step
        assert 0 <= span.crop_stop - min(length, span.stop + halo) < step
        assert span.crop_stop % step == 0 or span.crop_stop == length


@pytest.mark.parametrize(
    ("length", "tile", "halo", "step", "overlap"),
    [
        # What HiT-SR's windows need: one step at every edge, where equal parts need up to two.
        (2048, 384, 32, 192, 192),
        # SwinIR's: no more than the halo itself.
        (1000, 256, 32, 8, 64),
        (1000, 256, 30, 8, 64),
    ],
)
def test_spans_meet_where_crops_overlap_least(length, tile, halo, step, overlap):
    spans = cut(length, tile, halo, step)
    assert [a.crop_stop - b.crop_start for a, b in pairwise(spans)] == [overlap] * (len(spans) - 1)


@given(LENGTHS, st.integers(1, 90), HALOS)
def test_spans_are_small_and_nearly_equal(length, tile, halo):
    sizes = [span.stop - span.start for span in cut(length, tile, halo)]
    assert max(sizes) <= tile
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-length // tile)


@given(LENGTHS, st.integers(1, 90), HALOS, st.floats(0.3, 8))
def test_every_output_row_has_one_owner_that_sees_its_neighbours(length, tile, halo, scale):
    N = output_length(length, scale)
    axis = Axis.whole(length, N)
    rows = []
    for span in cut(length, tile, halo + 1):
        first, last = axis.owned(span.start, span.stop)
        rows += range(first, last)
        if first < last:
            low, high = axis.slice(first, last).span()
            assert span.crop_start <= max(0, low - halo)
            assert min(length, high + halo) <= span.crop_stop
    assert rows == list(range(N))


def test_no_cutting():
    assert cut(100, 0, 7) == [Span(0, 100, 0, 100)]
    assert cut(100, 100, 7) == [Span(0, 100, 0, 100)]


def test_spans_by_hand():
    assert cut(10, 4, 2) == [Span(0, 3, 0, 5), Span(3, 6, 1, 8), Span(6, 10, 4, 10)]


@pytest.mark.parametrize(("tile", "halo"), [(-1, 0), (4, -1)])
def test_negative_numbers_are_refused(tile, halo):
    with pytest.raises(UsageError, match=f"got {tile} and {halo}"):
        cut(10, tile, halo)
    with pytest.raises(UsageError, match="step"):
        cut(10, 4, 0, 0)


@given(st.integers(0, 50), st.integers(0, 200), st.integers(-3, 70))
def test_bands_cover_a_range_in_order(start, count, most):
    pieces = list(bands(start, start + count, most))
    covered = [i for first, last in pieces for i in range(first, last)]
    assert covered == list(range(start, start + count))
    assert all(last - first <= max(1, most) for first, last in pieces)
