"""Blur, resizing, noise and compression, held to formulas and to other libraries."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scaleport.imaging import degradation as steps


@pytest.fixture(scope="module")
def picture():
    """A smooth colour picture with an edge, uint8[48, 56, 3]."""
    y, x = np.mgrid[:48, :56]
    waves = np.stack([np.sin((x * (c + 1) + y) / 7) * 80 + 128 for c in range(3)], axis=-1)
    return np.where((x > 30)[..., None], waves, 90).astype(np.uint8)


def test_gaussian_kernel_has_the_variance_that_was_asked_for():
    kernel = steps.gaussian_kernel(1.5, 1.5)
    n = len(kernel) // 2
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * y**2).sum() == pytest.approx(1.5**2, rel=0.03)
    # A quarter turn exchanges the axes.
    turned = steps.gaussian_kernel(2.0, 0.7, np.pi / 2)
    np.testing.assert_allclose(turned, steps.gaussian_kernel(0.7, 2.0), atol=1e-12)
    n = len(turned) // 2
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    assert (turned * x**2).sum() > 3 * (turned * y**2).sum() > 0


def test_sinc_kernel_is_that_of_bessel_functions():
    scipy = pytest.importorskip("scipy.special")
    cutoff, radius = 2.0, 7
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    r = np.hypot(y, x)
    r[radius, radius] = 1
    expected = cutoff * scipy.j1(cutoff * r) / (2 * np.pi * r)
    expected[radius, radius] = cutoff**2 / (4 * np.pi)
    np.testing.assert_allclose(
        steps.sinc_kernel(cutoff, radius), expected / expected.sum(), atol=1e-12
    )


@pytest.mark.parametrize("gray", [False, True])
def test_blur_is_a_convolution_with_mirrored_borders(picture, gray):
    image = picture[..., 0] if gray else picture
    kernel = steps.gaussian_kernel(1.3, 0.6, 0.4) + 0
    kernel[0] += 0.01  # not symmetric, so that a flipped kernel shows
    kernel /= kernel.sum()
    n = len(kernel) // 2
    colours = ((0, 0),) * (image.ndim - 2)
    padded = np.pad(image.astype(float), ((n, n), (n, n), *colours), "symmetric")
    expected = np.zeros(image.shape)
    for i in range(2 * n + 1):
        for j in range(2 * n + 1):
            part = padded[2 * n - i :, 2 * n - j :][: image.shape[0], : image.shape[1]]
            expected += kernel[i, j] * part
    got = steps.blur(image, kernel)
    assert got.dtype == np.uint8 and got.shape == image.shape
    assert np.abs(got - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", [steps.gaussian_noise, steps.poisson_noise])
@pytest.mark.parametrize("gray", [False, True])
def test_noise_has_its_standard_deviation(kind, gray):
    rng = np.random.default_rng(5)
    image = np.full((120, 120, 3), 160, np.uint8)
    noise = kind(image, 9.0, rng, gray).astype(float) - 160
    # Photons: the standard deviation is that of white times the root of the brightness.
    expected = 9.0 if kind is steps.gaussian_noise else 9.0 * np.sqrt(160 / 255)
    assert noise.std() == pytest.approx(expected, rel=0.03)
    assert abs(noise.mean()) < 0.3
    assert np.array_equal(noise[..., 0], noise[..., 1]) == gray
    plane = kind(image[..., 0], 9.0, np.random.default_rng(5))
    assert plane.shape == (120, 120)
    again = kind(image, 9.0, np.random.default_rng(5), gray)
    assert np.array_equal(again - 160.0, noise)


@pytest.mark.parametrize("full", [False, True])
def test_jpeg_is_pillows(picture, full):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=60, subsampling=0 if full else 2)
    expected = np.asarray(Image.open(stream))
    assert np.array_equal(steps.compress(picture, "jpeg", 60, full), expected)


def test_blocks_begin_where_the_phase_says(picture):
    """A crop of a compressed picture, against the crop compressed at that phase."""
    gray = picture[..., 0]
    whole = steps.compress(gray, "jpeg", 30)
    y, x = 3, 5
    crop = steps.compress(gray[y:, x:], "jpeg", 30, phase=(y, x))
    inner = (slice(8 - y, None), slice(8 - x, None))  # the first blocks hold what was mirrored
    assert np.array_equal(crop[inner], whole[y:, x:][inner])
    aligned = steps.compress(gray[y:, x:], "jpeg", 30)
    assert not np.array_equal(aligned[inner], whole[y:, x:][inner])


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_lower_quality_loses_more(picture, codec):
    errors = [
        np.square(steps.compress(picture, codec, quality).astype(float) - picture).mean()
        for quality in (95, 60, 20)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_resize_is_pillows_and_keeps_flat_pictures():
    flat = np.full((20, 30, 3), 77, np.uint8)
    for name in steps.FILTERS:
        made = steps.resize(flat, 13, 41, name)
        assert made.shape == (13, 41, 3) and (made == 77).all()
