import math

import numpy as np
import pytest

from scaleport.errors import ImageError
from scaleport.validation.metrics import luma, max_abs, psnr, psnr_y

RNG = np.random.default_rng(1)


def test_psnr_of_a_known_error():
    a = np.zeros((4, 5))
    assert psnr(a, a + 0.1) == pytest.approx(20)
    assert psnr(a, a + 25.5, peak=255) == pytest.approx(20)
    assert psnr(a, a) == math.inf


def test_psnr_of_bytes_does_not_wrap():
    a, b = np.uint8([[0, 255]]), np.uint8([[255, 0]])
    assert psnr(a, b, 255) == pytest.approx(0)
    assert max_abs(a, b) == 255


def test_max_abs_reports_nan():
    assert math.isnan(max_abs(np.array([0.0, np.nan]), np.zeros(2)))


def test_luma_of_known_colours():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    np.testing.assert_allclose(luma(colours), [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


def test_psnr_y_counts_inside_the_border_only():
    hr = RNG.integers(0, 256, (20, 21, 3), dtype=np.uint8)
    sr = hr.copy()
    sr[:3] = 255 - sr[:3]
    sr[:, -3:] = 0
    assert psnr_y(sr, hr, 3) == math.inf
    assert psnr_y(sr, hr, 2) < 40


def test_psnr_y_rounds_to_bytes_first():
    hr = np.full((8, 8, 3), 100, np.uint8)
    assert psnr_y(hr + 0.4, hr, 0) == math.inf
    # One step of all colours is 219 / 255 of a step of luma.
    expected = 20 * math.log10(255 / (219 / 255))
    assert psnr_y(hr + 0.6, hr, 1) == pytest.approx(expected)


def test_psnr_y_clips_to_bytes_first():
    hr = np.full((8, 8), 255, np.uint8)
    assert psnr_y(np.full((8, 8), 300.0), hr, 0) == math.inf


def test_gray_counts_as_luma():
    hr = np.full((8, 8), 100, np.uint8)
    assert psnr_y(hr + 1, hr, 2) == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize(
    ("sr", "hr", "border"),
    [
        (np.ones((4, 4)), np.ones((4, 5)), 0),
        (np.ones((4, 4)), np.ones((4, 4)), 2),
        (np.ones((4, 4)), np.ones((4, 4)), -1),
        (np.ones(4), np.ones(4), 0),
        (np.ones((4, 4, 2)), np.ones((4, 4, 2)), 0),
    ],
)
def test_refuses_what_cannot_be_compared(sr, hr, border):
    with pytest.raises(ImageError):
        psnr_y(sr, hr, border)


def test_refuses_empty_arrays_and_other_shapes():
    with pytest.raises(ImageError, match="empty"):
        psnr(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ImageError, match="shapes"):
        max_abs(np.ones(3), np.ones(4))
