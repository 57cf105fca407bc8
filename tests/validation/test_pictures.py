"""Test pictures: always the same, and with everything that can go wrong in them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from scaleport.errors import UsageError
from scaleport.validation.pictures import mirrored_picture, picture


def test_the_same_on_every_call_and_another_per_seed():
    np.testing.assert_array_equal(picture(20, 30), picture(20, 30))
    assert np.abs(picture(20, 30) - picture(20, 30, seed=1)).max() > 0.1


def test_the_same_on_every_machine():
    """Rounded to bytes, so that the last bit of a sine does not matter."""
    levels = np.round(picture(24, 32) * 15).astype(np.uint8)
    assert hashlib.sha256(levels.tobytes()).hexdigest()[:16] == "7e100c67d8cdd2ad"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 1), (13, 17), (64, 48)])
def test_pixels_are_pixels(size):
    image = picture(*size)
    assert image.shape == (1, 3, *size)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


def test_what_it_shows():
    image = picture(64, 64)[0]
    # Strokes at the Nyquist frequency, dark and bright by turns.
    corner = np.diff(image[:, :14, 50:62], axis=2)
    assert np.abs(corner).min() > 0.5
    # Hard edges, colour, and grain where the shading is smooth.
    assert np.abs(np.diff(image[:, 16:], axis=1)).max() > 0.3
    assert np.abs(image[0] - image[1]).max() > 0.2
    assert image.std() > 0.1


def test_mirrored_halves():
    image = mirrored_picture(30, 12)
    np.testing.assert_array_equal(image[:, :, ::-1], image)
    np.testing.assert_array_equal(image[:, :, :15], picture(15, 12))
    assert image.flags.c_contiguous


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_no_picture(size):
    with pytest.raises(UsageError, match="at least 1x1"):
        picture(*size)


def test_odd_heights_have_no_halves():
    with pytest.raises(UsageError, match="even height, got 31"):
        mirrored_picture(31, 8)
