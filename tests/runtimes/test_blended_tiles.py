"""Tiles that are not exact fade into each other: no seam, bounded error, no row lost."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy_backend import numpy_stages, write_bundle

from scaleport.errors import OutOfMemoryError
from scaleport.grid import Axis, Grid
from scaleport.runtimes.arrays import HOST
from scaleport.runtimes.tiling import blended_rows, cut, ramp_of, weights
from scaleport.runtimes.view import TilePolicy, View

RADIUS = 8
OFFSET = 0.2
WHOLE = TilePolicy(tile=0)
TILED = TilePolicy(tile=20, render_pixels=900)


class _Differs:
    """Brightens what it encodes by an amount that depends on nothing but which tile it is."""

    def __init__(self, session, most=10**9):
        self.session, self.most, self.seen = session, most, {}
        self.device, self.inputs, self.outputs = "differs", (), ()

    def run(self, feeds, keep=()):
        image = feeds["image"]
        if image[0, 0].size > self.most:
            raise OutOfMemoryError("too much")
        found = self.session.run(feeds)["feature"]
        if min(image.shape[2:]) > 50:
            return {"feature": found}  # the whole image
        turn = self.seen.setdefault(image.tobytes(), len(self.seen))
        return {"feature": found + np.float32(OFFSET * (turn % 2))}


def stages_of(path, tiling, family="query", most=10**9):
    stages = numpy_stages(
        write_bundle(path, family, tiling=tiling, receptive_field=RADIUS, natives=(2, 4))
    )
    stages._sessions["encode"] = _Differs(stages.session("encode"), most)
    return stages


@pytest.fixture
def image():
    y, x = np.mgrid[:70, :64] / np.float32(90)
    return np.stack([y, x, (x + y) / 2])[None].astype(np.float32)


def largest_step(error):
    """The largest jump of the error from one pixel to the next."""
    return max(np.abs(np.diff(error, axis=axis)).max() for axis in (2, 3))


@pytest.mark.parametrize("family", ["query", "lattice"])
@pytest.mark.parametrize("scale", [2.0, 2.7, (1.5, 3.2)])
def test_disagreement_of_tiles_is_no_seam(tmp_path, image, family, scale):
    whole = View(stages_of(tmp_path / "w.bundle", "approximate", family), image, WHOLE)
    tiled = View(stages_of(tmp_path / "t.bundle", "approximate", family), image, TILED)
    hard = View(stages_of(tmp_path / "h.bundle", "exact", family), image, TILED)
    want = whole.render(scale)
    error, seams = tiled.render(scale) - want, hard.render(scale) - want
    assert np.abs(error).max() <= OFFSET + 1e-5
    assert largest_step(seams) > 0.99 * OFFSET
    # Linear over 2 * ramp LR pixels; where four tiles meet, two ramps may add up.
    per_pixel = OFFSET / (RADIUS * min(np.atleast_1d(scale)))
    assert largest_step(error) <= 2.1 * per_pixel
    assert largest_step(error) < 0.2 * largest_step(seams)


@pytest.mark.parametrize("family", ["query", "lattice"])
def test_tiles_that_agree_blend_to_the_untiled_image(tmp_path, image, family):
    def stages(name):
        return numpy_stages(
            write_bundle(tmp_path / name, family, tiling="approximate", receptive_field=RADIUS)
        )

    whole = View(stages("w.bundle"), image, WHOLE).render(2.7)
    tiled = View(stages("t.bundle"), image, TILED).render(2.7)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_exact_tiles_are_bit_equal(tmp_path, image):
    stages = numpy_stages(write_bundle(tmp_path / "e.bundle"))
    whole = View(stages, image, WHOLE).render(2.7)
    np.testing.assert_array_equal(View(stages, image, TILED).render(2.7), whole)


def test_a_region_is_the_crop_of_the_whole(tmp_path, image):
    view = View(stages_of(tmp_path / "t.bundle", "approximate"), image, TILED)
    whole = view.render(2.7)
    for y0, x0, y1, x1 in [(0, 0, 30, 40), (44, 38, 60, 170), (188, 0, 189, 173)]:
        part = view.render(2.7, region=(y0, x0, y1, x1))
        np.testing.assert_allclose(part, whole[:, :, y0:y1, x0:x1], atol=1e-6)


def test_bands_are_the_image_also_when_memory_runs_out(tmp_path, image):
    pixels = (image[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    stages = stages_of(tmp_path / "t.bundle", "approximate")
    view = View(stages, pixels, TilePolicy(tile=32))
    done = []
    bands = view.bands(2.0, progress=lambda some, all_, _: done.append(some / all_))
    first = next(bands)
    stages._sessions["encode"].most = 1200
    made = np.concatenate([first, *bands])
    assert made.shape == (140, 128, 3)
    assert view.policy.tile < 32
    assert done[-1] == 1.0
    want = View(numpy_stages(stages.source.bundle.path), pixels, WHOLE).render(2.0)
    assert np.abs(made.astype(int) - want).max() <= OFFSET * 255 + 1


@pytest.mark.parametrize(("n", "N"), [(70, 140), (70, 189), (64, 64), (33, 20)])
@pytest.mark.parametrize("ramp", [0, 1, 4])
def test_weights_add_up_to_one(n, N, ramp):
    total = sum(weights(Axis.whole(n, N), span, ramp) for span in cut(n, 16, 8))
    if ramp:
        np.testing.assert_allclose(total, 1, atol=1e-6)


def planes_of(tile, part):
    """A picture of its own for every tile, that does not depend on how much of it is asked for."""
    y, x = np.mgrid[part.rows.start : part.rows.stop, part.cols.start : part.cols.stop]
    turn = 7 * tile[0].start + 11 * tile[1].start
    return np.stack([np.sin(y + turn), np.cos(x - turn), np.sin(x * y + turn)])[None].astype("f4")


def blended_at_once(rows, cols, whole, ramp):
    """Whole pictures of all tiles, weighted and added up."""
    total = np.zeros((1, 3, *whole.shape))
    for row, col in product(rows, cols):
        fade = np.outer(weights(whole.rows, row, ramp), weights(whole.cols, col, ramp))
        total += planes_of((row, col), whole) * fade
    return total


@st.composite
def cases(draw):
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    whole = Grid.from_size(height, width, draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    y0, x0 = (draw(st.integers(0, length - 1)) for length in whole.shape)
    y1 = draw(st.integers(y0 + 1, whole.shape[0]))
    x1 = draw(st.integers(x0 + 1, whole.shape[1]))
    tile, radius = draw(st.integers(3, 50)), draw(st.integers(2, 30))
    return whole, (y0, x0, y1, x1), tile, radius


@settings(deadline=None)
@given(cases())
def test_bands_are_the_weighted_sum_of_whole_planes(case):
    whole, (y0, x0, y1, x1), tile, radius = case
    rows, cols = (cut(length, tile, radius) for length in whole.input_size)
    ramp = ramp_of(rows, cols, radius)
    assume(ramp)
    want = blended_at_once(rows, cols, whole, ramp)[..., y0:y1, x0:x1]
    renderer = SimpleNamespace(arrays=HOST, planes=planes_of)
    bands = blended_rows(rows, cols, whole.region(y0, x0, y1, x1), ramp, renderer)
    made = np.concatenate(
        [np.concatenate([planes for _, _, planes in parts], axis=3) for parts in bands], axis=2
    )
    assert made.shape == want.shape
    np.testing.assert_allclose(made, want, atol=1e-5)


def test_a_region_that_begins_between_two_tiles_has_pixels(tmp_path, image):
    """The tiles before the border are faded out in it, and complete nothing."""
    pixels = (image[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    view = View(stages_of(tmp_path / "t.bundle", "approximate"), pixels, TILED)
    whole, border = view.render(2.0), 2 * view._tiles.rows[0].stop
    for y0, x0 in [(border, 0), (0, 2 * view._tiles.cols[0].stop), (border - 1, border + 1)]:
        seen = []
        part = view.render(
            2.0, region=(y0, x0, y0 + 3, x0 + 4), progress=lambda *now, to=seen: to.append(now[:2])
        )
        np.testing.assert_array_equal(part, whole[y0 : y0 + 3, x0 : x0 + 4])
        total = seen[0][1]
        assert seen == [(number, total) for number in range(1, total + 1)]
