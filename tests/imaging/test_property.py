"""Whatever file comes, its right pixels come out, or an error that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import Sample, samples

from scaleport.errors import ImageError
from scaleport.imaging.files import load_image, save_image

OPTIONS = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


def loaded(path: Path, data: bytes):
    """The image, or None after an error of one line that names the file."""
    path.write_bytes(data)
    try:
        return load_image(path)
    except ImageError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return None


def is_right(pixels: np.ndarray, sample: Sample) -> bool:
    if pixels.shape != sample.pixels.shape or pixels.dtype != sample.pixels.dtype:
        return False
    if not sample.tolerance:
        return np.array_equal(pixels, sample.pixels)
    return np.abs(pixels.astype(int) - sample.pixels.astype(int)).max() <= sample.tolerance


def check_whole(folder: Path, sample: Sample) -> None:
    image = loaded(folder / "whole", sample.data)
    assert image is not None, f"a {sample.name} is refused"
    assert is_right(image.pixels, sample), f"a {sample.name} has other pixels"
    found = image.metadata.density
    if sample.density is None:
        assert found is None
    else:
        np.testing.assert_allclose(np.array(found) * 25.4, sample.density, rtol=1e-3)
    target = folder / ("out.tiff" if image.pixels.dtype == np.float32 else "out.png")
    save_image(target, image)
    again = load_image(target)
    np.testing.assert_array_equal(again.pixels, image.pixels)
    if found is None:
        assert again.metadata.density is None
    else:
        np.testing.assert_allclose(again.metadata.density, found, rtol=1e-3)


def check_truncated(folder: Path, sample: Sample, part: float) -> None:
    image = loaded(folder / "short", sample.data[: int(part * len(sample.data))])
    assert image is None or is_right(image.pixels, sample), f"a short {sample.name}"


def check_overwritten(folder: Path, sample: Sample, place: float, garbage: bytes) -> None:
    data = bytearray(sample.data)
    at = int(place * len(data))
    stop = min(len(data), at + len(garbage))
    sealed = next(((a, b) for a, b in sample.sealed if a <= at < b), None)
    if sealed is not None:
        stop = min(stop, sealed[1])
    data[at:stop] = garbage[: stop - at]
    image = loaded(folder / "damaged", bytes(data))
    if image is None:
        return
    if sealed is not None:
        assert is_right(image.pixels, sample), f"a damaged {sample.name}"
    # Without a checksum, other bytes are another picture; but a picture it must be.
    assert image.pixels.dtype in (np.uint8, np.uint16, np.float32)
    assert image.pixels.ndim in (2, 3)
    assert image.pixels.size > 0


def check(folder: Path, sample: Sample, part: float, place: float, garbage: bytes) -> None:
    check_whole(folder, sample)
    check_truncated(folder, sample, part)
    check_overwritten(folder, sample, place, garbage)


places = st.floats(0, 1, exclude_max=True)
garbage = st.binary(min_size=1, max_size=64) | st.integers(1, 200).map(bytes)


@settings(max_examples=200, **OPTIONS)
@given(sample=samples(), part=places, place=places, damage=garbage)
def test_right_pixels_or_a_refusal(tmp_path, sample, part, place, damage) -> None:
    check(tmp_path, sample, part, place, damage)


@pytest.mark.long
@settings(max_examples=5000, **OPTIONS)
@given(sample=samples(), part=places, place=places, damage=garbage)
def test_right_pixels_or_a_refusal_of_thousands(tmp_path, sample, part, place, damage) -> None:
    check(tmp_path, sample, part, place, damage)
