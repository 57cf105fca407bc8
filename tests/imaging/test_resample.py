import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scaleport.errors import ImageError, ScaleError, UsageError
from scaleport.grid import Axis
from scaleport.imaging.resample import imresize, resize_matrix, support

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (1, 7), (5, 5), (12, 5), (13, 31), (31, 13), (64, 9), (9, 64), (40, 39)]


def image_folder():
    folder = os.environ.get("SCALEPORT_DATA")
    if not folder:
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    return Path(folder)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_reproduces_matlab(name, scale):
    data = image_folder()
    files = sorted((data / "bench" / name).glob("*.png"))
    assert files
    for file in files:
        hr = np.asarray(Image.open(file))
        h, w = hr.shape[0] // scale, hr.shape[1] // scale
        lr_file = next((data / f"lr_matlab/new_symmetric/{name}/X{scale}").glob(f"{file.stem}x*"))
        lr = np.asarray(Image.open(lr_file))
        ours = imresize(hr[: h * scale, : w * scale], h, w, round_passes=True)
        assert ours.shape[:2] == lr.shape[:2]
        assert np.array_equal(ours if ours.ndim == lr.ndim else ours[..., 0], lr), file.stem


@pytest.mark.parametrize(("n", "N"), SIZES)
def test_equals_the_torch_graph(n, N):
    torch = pytest.importorskip("torch")
    from scaleport.models.resample import resample

    image = RNG.random((n, 11, 3)).astype(np.float32)
    rows, cols = Axis.whole(n, N), Axis.whole(11, 17)
    theirs = resample(torch.from_numpy(image.transpose(2, 0, 1)[None]), rows, cols)
    ours = imresize(image, rows, cols, border="replicate")
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs[0].numpy().transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("border", ["symmetric", "replicate"])
@pytest.mark.parametrize(("n", "N"), SIZES)
def test_region_of_a_crop_equals_the_slice(border, n, N):
    image = RNG.random((n, 23)).astype(np.float32)
    whole = imresize(image, N, 17, border)
    cols = Axis(23, 17, 3, 15)
    left, right = support(cols, border)
    for start in range(0, N, max(1, N // 4)):
        stop = min(N, start + 3)
        rows = Axis(n, N, start, stop)
        top, bottom = support(rows, border)
        part = imresize(
            image[top:bottom, left:right],
            Axis(n, N, start, stop, top),
            Axis(23, 17, 3, 15, left),
            border,
        )
        assert np.array_equal(part, whole[start:stop, 3:15])


def test_bands_do_not_show(monkeypatch):
    image = RNG.random((50, 20, 3))
    whole = imresize(image, 33, 47)
    monkeypatch.setattr("scaleport.imaging.resample._BAND_ELEMENTS", 1)
    assert np.array_equal(imresize(image, 33, 47), whole)


@pytest.mark.parametrize("border", ["symmetric", "replicate"])
@pytest.mark.parametrize(("n", "N"), SIZES)
def test_matrix_is_the_same_map_and_keeps_constants(border, n, N):
    matrix = resize_matrix(Axis.whole(n, N), border)
    image = RNG.random((n, 4))
    np.testing.assert_allclose(matrix @ image, imresize(image, N, 4, border), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


def test_same_size_is_the_identity():
    image = RNG.random((9, 8, 3))
    assert np.array_equal(imresize(image, 9, 8), image)


def test_linear_ramp_stays_linear_inside():
    ramp = np.arange(60, dtype=np.float64)[None].repeat(4, axis=0)
    for width in (25, 60, 97):
        out = imresize(ramp, 4, width)[0]
        expected = (np.arange(width) + 0.5) * 60 / width - 0.5
        inside = (expected > 8) & (expected < 51)
        np.testing.assert_allclose(out[inside], expected[inside], atol=0.02)


def test_mirror_symmetry():
    image = RNG.random((30, 30))
    flipped = imresize(image[::-1], 13, 41)[::-1]
    np.testing.assert_allclose(flipped, imresize(image, 13, 41), atol=1e-6)


def test_bicubic_of_an_impulse_is_the_kernel():
    impulse = np.zeros((1, 9))
    impulse[0, 4] = 1
    out = imresize(impulse, 1, 18)[0]
    x = np.array([1.75, 1.25, 0.75, 0.25])
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    np.testing.assert_allclose(out[5:9], np.where(x <= 1, near, far), atol=1e-7)


def test_rounding_gives_bytes():
    image = RNG.integers(0, 2, (20, 20), dtype=np.uint8) * 255
    out = imresize(image, 33, 33, round_passes=True)
    assert np.array_equal(out, out.astype(np.uint8))


def test_types():
    assert imresize(np.ones((4, 4), np.uint8), 2, 2).dtype == np.float64
    assert imresize(np.ones((4, 4), np.float16), 2, 2).dtype == np.float32


@pytest.mark.parametrize(
    "image", [np.ones(4), np.ones((0, 4)), np.array([["a"]]), np.ones((2,) * 4)]
)
def test_refuses_what_is_no_image(image):
    with pytest.raises(ImageError, match="not an image"):
        imresize(image, 2, 2)


def test_refuses_a_crop_that_is_too_small():
    with pytest.raises(ImageError, match="origin"):
        imresize(np.ones((5, 5)), Axis(40, 20, 10, 12, 19), Axis.whole(5, 5))


def test_refuses_unknown_border_and_size():
    with pytest.raises(UsageError, match="reflect"):
        imresize(np.ones((5, 5)), 2, 2, border="reflect")
    with pytest.raises(ScaleError):
        imresize(np.ones((5, 5)), 0, 2)
