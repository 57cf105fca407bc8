import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scaleport.errors import ImageError, UsageError
from scaleport.evaluation.metrics import METRICS
from scaleport.evaluation.protocols import PROTOCOLS, find_protocol
from scaleport.evaluation.run import find_sets, score
from scaleport.evaluation.subjects import bicubic
from scaleport.validation.metrics import psnr_y

BASICSR, LIIF_Y, LIIF_RGB = (PROTOCOLS[n] for n in PROTOCOLS)

PUBLISHED = {
    "Set5": {2.0: 33.66, 3.0: 30.39, 4.0: 28.42},
    "Set14": {2.0: 30.24, 3.0: 27.55, 4.0: 26.00},
    "B100": {2.0: 29.56, 3.0: 27.21, 4.0: 25.96},
}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize(
    ("scale", "low", "high"),
    [(2, (15, 12), (30, 24)), (2.7, (11, 9), (30, 24)), (4, (7, 6), (28, 24)), (1, (30, 25), None)],
)
def test_pairs_fit_their_scale(protocol, scale, low, high):
    image = np.random.default_rng(0).integers(0, 256, (30, 25, 3), dtype=np.uint8)
    lr, hr = protocol.pair(image, scale)
    assert lr.dtype == np.uint8 and lr.shape == (*low, 3)
    assert np.array_equal(hr, image[: (high or low)[0], : (high or low)[1]])


def test_too_small_for_the_scale():
    with pytest.raises(ImageError, match="x4"):
        BASICSR.pair(np.zeros((3, 9), np.uint8), 4)
    with pytest.raises(ImageError, match="leaves nothing"):
        LIIF_RGB.compared(np.zeros((16, 30, 3)), 2)


def test_basicsr_is_psnr_y():
    rng = np.random.default_rng(1)
    hr = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    sr = hr + rng.normal(0, 9, hr.shape)
    planes = [BASICSR.compared(image, 3) for image in (sr, hr)]
    assert METRICS["psnr"].measure(*planes) == pytest.approx(psnr_y(sr, hr, 3), abs=1e-9)


def test_liif_protocols_are_those_of_its_code():
    """The formulas of the authors' ``calc_psnr``, on values in [0, 1]."""
    rng = np.random.default_rng(2)
    hr = rng.random((3, 40, 44))
    sr = (hr + rng.normal(0, 0.05, hr.shape)).clip(0, 1)
    gray = (sr - hr) * np.array([65.738, 129.057, 25.064])[:, None, None] / 256
    gray = gray.sum(axis=0)[3:-3, 3:-3]
    rgb = (sr - hr)[:, 9:-9, 9:-9]
    pixels = [np.moveaxis(image, 0, -1) * 255 for image in (sr, hr)]
    for protocol, difference in ((LIIF_Y, gray), (LIIF_RGB, rgb)):
        planes = [protocol.compared(image, 3) for image in pixels]
        expected = -10 * np.log10((difference**2).mean())
        assert METRICS["psnr"].measure(*planes) == pytest.approx(expected, abs=1e-9)


def test_degradation_and_gray_differ_between_protocols():
    image = np.random.default_rng(3).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    assert np.array_equal(BASICSR.pair(image, 2)[0], LIIF_Y.pair(image, 2)[0])
    six = LIIF_Y.pair(image, 6)[0]
    assert not np.array_equal(BASICSR.pair(image, 6)[0], six)
    assert np.array_equal(six, Image.fromarray(image).resize((6, 6), Image.Resampling.BICUBIC))
    gray = image[..., 0]
    assert BASICSR.taken(gray).ndim == 2 and LIIF_Y.taken(gray).shape == (36, 36, 3)


def test_names_are_listed():
    with pytest.raises(UsageError, match="basicsr-y, liif-benchmark-y, liif-div2k-rgb"):
        find_protocol("psnr-best")


@pytest.mark.parametrize("name", PUBLISHED)
def test_bicubic_is_the_published_one(name):
    folder = os.environ.get("SCALEPORT_DATA")
    if not folder:
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    sets = find_sets(Path(folder) / "bench", [name])
    scores = score(sets, list(PUBLISHED[name]), [bicubic()], BASICSR, [METRICS["psnr"]])
    for row in scores:
        assert row.values["psnr"] == pytest.approx(PUBLISHED[name][row.scale], abs=0.02)


def test_ssim_is_the_usual_one():
    """Wang et al. 2004, window by window."""
    pytest.importorskip("skimage")
    rng = np.random.default_rng(4)
    hr = rng.integers(0, 256, (14, 17)).astype(float)
    sr = hr + rng.normal(0, 20, hr.shape)
    line = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for y in range(4):
        for x in range(7):
            a, b = (image[y : y + 11, x : x + 11] for image in (sr, hr))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a = (window * a * a).sum() - mean_a**2
            var_b = (window * b * b).sum() - mean_b**2
            both = (window * a * b).sum() - mean_a * mean_b
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert METRICS["ssim"].measure(sr, hr) == pytest.approx(np.mean(values), abs=1e-6)
