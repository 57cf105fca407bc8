from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleport.errors import BackendError, ImageError
from scaleport.imaging.convert import from_planes, layout_of, to_integers, to_planes

SHAPES = [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1), (1, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_round_trip(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    if dtype is np.float32:
        pixels = rng.normal(size=shape).astype(dtype)
    else:
        pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    planes = to_planes(pixels)
    alpha = len(shape) == 3 and shape[2] in (2, 4)
    assert planes.dtype == np.float32
    assert planes.shape == (2 if alpha else 1, 3, *shape[:2])
    back = from_planes(planes, layout_of(pixels))
    assert back.dtype == dtype
    assert back.flags.c_contiguous
    if dtype is np.float32:
        np.testing.assert_allclose(back, pixels, rtol=1e-6)
    else:
        np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_value_survives(dtype: type) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    for pixels in (values[None], values[None, :, None].repeat(3, axis=2)):
        np.testing.assert_array_equal(from_planes(to_planes(pixels), layout_of(pixels)), pixels)
    assert to_planes(values[None]).max() == 1


def test_where_channels_go() -> None:
    pixels = np.array([[[10, 20, 30, 40]]], dtype=np.uint8)
    planes = to_planes(pixels)
    np.testing.assert_array_equal(planes[0, :, 0, 0], np.float32([10, 20, 30]) / np.float32(255))
    np.testing.assert_array_equal(planes[1, :, 0, 0], np.float32([40] * 3) / np.float32(255))
    planes = to_planes(pixels[..., :2])
    np.testing.assert_array_equal(planes[:, :, 0, 0], np.float32([[10] * 3, [20] * 3]) / 255)


def test_gray_is_the_mean_of_the_channels() -> None:
    planes = np.float32([0.1, 0.2, 0.6]).reshape(1, 3, 1, 1)
    gray = from_planes(planes, layout_of(np.zeros((1, 1), np.float32)))
    assert gray.shape == (1, 1)
    assert gray[0, 0] == pytest.approx(0.3)


def test_rounding_is_half_to_even_and_clips() -> None:
    values = np.float32([0.5, 1.5, 2.5, 254.5, -7, 300, -np.inf, np.inf]) / np.float32(255)
    # Exact halves only: division and product by 255 must give them back.
    assert list((values * np.float32(255))[:4]) == [0.5, 1.5, 2.5, 254.5]
    got = to_integers(values, np.dtype(np.uint8))
    np.testing.assert_array_equal(got, np.array([0, 2, 2, 254, 0, 255, 0, 255], np.uint8))


def test_float_is_not_clipped() -> None:
    pixels = np.float32([[[-0.5, 0.5, 1.5]]])
    np.testing.assert_array_equal(from_planes(to_planes(pixels), layout_of(pixels)), pixels)
    assert from_planes(to_planes(pixels.astype(np.float64)), layout_of(pixels)).dtype == np.float32


def test_nan_does_not_become_a_pixel() -> None:
    planes = np.zeros((1, 3, 2, 2), np.float32)
    planes[0, 1, 1, 0] = np.nan
    with pytest.raises(BackendError, match="NaN"):
        from_planes(planes, layout_of(np.zeros((2, 2, 3), np.uint8)))


def test_other_byte_order() -> None:
    pixels = np.array([[1, 256, 65535]], dtype=">u2")
    back = from_planes(to_planes(pixels), layout_of(pixels))
    np.testing.assert_array_equal(back, [[1, 256, 65535]])
    assert back.dtype == np.uint16
    assert back.dtype.isnative


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4), bool),
    ],
)
def test_what_is_no_picture(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError):
        to_planes(pixels)


def test_planes_that_do_not_fit() -> None:
    with pytest.raises(ImageError, match=r"expected planes \[2, 3, H, W\]"):
        from_planes(np.zeros((1, 3, 2, 2), np.float32), layout_of(np.zeros((2, 2, 4), np.uint8)))


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20))
def test_integers_are_the_nearest(values: list[float]) -> None:
    array = np.float32(values)
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        got = to_integers(array, np.dtype(dtype)).astype(np.float64)
        exact = np.clip(array.astype(np.float64), 0, 1) * top
        assert np.abs(got - exact).max() <= 0.5 + top * 2.0**-24
