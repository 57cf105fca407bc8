"""No fringe around a logo: colour goes on under what is transparent."""

from __future__ import annotations

import numpy as np
import pytest

from scaleport.grid import Grid
from scaleport.imaging.convert import to_planes
from scaleport.imaging.resample import imresize
from scaleport.imaging.source import PictureSource
from scaleport.imaging.transparent import FLAT, fill_transparent, flat
from scaleport.runtimes.arrays import HOST


def logo(hidden):
    """A bright disc with a soft border on nothing, with some colour under the nothing."""
    y, x = np.mgrid[:41, :37] - 18.0
    alpha = np.clip(12.5 - np.hypot(y, x), 0, 1)
    pixels = np.empty((41, 37, 4))
    pixels[..., :3] = np.where(alpha[..., None] > 0, [250, 180, 40], hidden)
    pixels[..., 3] = alpha * 255
    return pixels.round().astype(np.uint8)


def shown(planes, background):
    """What a screen shows of planes upscaled with a bicubic kernel, on a background."""
    big = [imresize(p.transpose(1, 2, 0), 123, 111, "replicate") for p in planes]
    alpha = np.clip(big[1], 0, 1)
    return big[0] * alpha + background * (1 - alpha)


@pytest.mark.parametrize("hidden", [[0, 0, 0], [255, 255, 255], [0, 0, 255]])
@pytest.mark.parametrize("background", [0.0, 1.0])
def test_hidden_colour_does_not_show_on_any_background(hidden, background):
    plain = to_planes(logo([250, 180, 40]))
    want = shown(plain, background)
    raw = to_planes(logo(hidden))
    fringe = np.abs(shown(raw, background) - want).max()
    filled = np.abs(shown(fill_transparent(raw), background) - want).max()
    assert fringe > 0.05
    assert filled < 1e-5


def test_what_is_visible_stays_as_it_is():
    rng = np.random.default_rng(3)
    planes = rng.random((2, 3, 30, 20), np.float32)
    planes[1] = np.where(rng.random((30, 20)) < 0.6, 0, planes[1, 0])
    before = planes.copy()
    made = fill_transparent(planes)
    np.testing.assert_array_equal(made[1], before[1])
    visible = before[1, 0] > 0
    np.testing.assert_array_equal(made[0][:, visible], before[0][:, visible])
    assert made[0].min() >= 0
    assert made[0].max() <= 1 + 1e-6


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_nothing_to_fill_from_or_nothing_to_fill(alpha):
    planes = np.random.default_rng(1).random((2, 3, 9, 8), np.float32)
    planes[1] = alpha
    np.testing.assert_array_equal(fill_transparent(planes.copy()), planes)


def test_regions_are_those_of_the_whole_picture():
    source = PictureSource(logo([0, 0, 0]))
    whole = source.planes(0, 0, 41, 37)
    assert (whole[0, :, 0, 18] > 0).all()
    for top, left, bottom, right in [(0, 0, 5, 5), (3, 2, 9, 30), (20, 25, 41, 37), (0, 0, 41, 37)]:
        part = source.planes(top, left, bottom, right)
        np.testing.assert_array_equal(part, whole[:, :, top:bottom, left:right])


def settle(source, planes, part):
    return HOST.settled(planes, *source.flat_alpha(part))


@pytest.mark.parametrize("scale", [0.7, 2.0, 2.7])
def test_alpha_that_is_flat_stays_exactly_that(scale):
    """And nothing else changes; regions are those of the whole picture."""
    pixels = logo([0, 0, 0])
    source, grid = PictureSource(pixels), Grid.from_scale(41, 37, scale)
    made = np.random.default_rng(5).random((2, 3, *grid.shape), np.float32)
    settled = settle(source, made, grid)
    np.testing.assert_array_equal(settled[0], made[0])
    alpha = to_planes(pixels)[1, 0]
    for y, x in np.ndindex(*grid.shape):
        at = (int((y + 0.5) * 41 / grid.shape[0]), int((x + 0.5) * 37 / grid.shape[1]))
        around = alpha[tuple(slice(max(0, i - FLAT), i + FLAT + 1) for i in at)]
        want = alpha[at] if np.ptp(around) == 0 else made[1, :, y, x]
        assert (settled[1, :, y, x] == want).all()
    assert flat(alpha).any()
    y1, x1 = grid.shape
    for region in [(0, 0, 5, 6), (y1 - 9, 3, y1, x1 - 2)]:
        cut = np.s_[:, :, region[0] : region[2], region[1] : region[3]]
        part = settle(source, made[cut], grid.region(*region))
        np.testing.assert_array_equal(part, settled[cut])


def test_what_has_no_alpha_stays_as_it_is():
    source = PictureSource(logo([0, 0, 0])[..., :3])
    assert source.flat_alpha(Grid.from_scale(41, 37, 2.0)) is None
