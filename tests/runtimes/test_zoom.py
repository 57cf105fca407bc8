"""Interactive zoom: regions are crops of the whole, bit for bit, and cost only the decoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_backend import numpy_stages, write_bundle

from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy, View

PIXELS = np.random.default_rng(3).random((44, 37, 3), dtype=np.float32)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def opened(request, tiny_bundle):
    upscaler = load(
        tiny_bundle("liif"), request.param, "fp32", threads=1, policy=TilePolicy(tile=20)
    )
    view = upscaler.open(PIXELS)
    return view, {scale: view.render(scale) for scale in (1.0, 1.7, 2.0, 4.3)}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_region_is_a_crop_of_the_whole_to_the_bit(opened, data) -> None:
    view, wholes = opened
    scale = data.draw(st.sampled_from(sorted(wholes)))
    whole = wholes[scale]
    assert view.output_size(scale) == whole.shape[:2]
    y0, x0 = (data.draw(st.integers(0, length - 1)) for length in whole.shape[:2])
    y1 = data.draw(st.integers(y0 + 1, whole.shape[0]))
    x1 = data.draw(st.integers(x0 + 1, whole.shape[1]))
    part = view.render(scale, region=(y0, x0, y1, x1))
    np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return numpy_stages(write_bundle(tmp_path_factory.mktemp("zoom") / "query.bundle"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60_000), st.lists(st.tuples(st.floats(0.5, 4), st.data()), max_size=4))
def test_the_cache_keeps_to_its_bytes_and_changes_no_pixel(stages, limit, asked) -> None:
    view = View(stages, PIXELS, TilePolicy(tile=12, cache_bytes=limit))
    free = View(stages, PIXELS, TilePolicy(tile=12))
    largest = 3 * 4 * 16 * 16  # bytes of one tile's features: 12 pixels and a halo of 2
    for scale, data in asked:
        rows, cols = view.output_size(scale)
        y, x = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
        region = (y, x, min(rows, y + 20), min(cols, x + 20))
        found = view.render(scale, region=region)
        np.testing.assert_array_equal(found, free.render(scale, region=region))
        assert 0 < view.cached_bytes <= max(limit, largest)


def test_what_was_used_least_lately_goes_first(stages) -> None:
    one_tile = 3 * 4 * 24 * 24
    view = View(stages, np.zeros((40, 60, 3), np.float32), TilePolicy(20, cache_bytes=2 * one_tile))
    calls = stages.backend.calls

    def encodes(column: int) -> int:
        before = calls.count("encode")
        view.render(2.0, region=(0, column, 10, column + 10))
        return calls.count("encode") - before

    # Tiles 0, 1, 0 again, then 2: what goes is 1.
    assert [encodes(x) for x in (0, 45, 0, 85, 0, 45)] == [1, 1, 0, 1, 0, 1]


def test_a_new_zoom_runs_only_the_decoder(stages) -> None:
    view = View(stages, PIXELS, TilePolicy(tile=20))
    view.render(1.5, region=(10, 10, 40, 40))
    stages.backend.calls.clear()
    view.render(3.3, region=(40, 40, 60, 60))
    assert set(stages.backend.calls) == {"render"}


def test_a_decoder_makes_as_many_pixels_at_once_as_fit_the_cache(stages) -> None:
    image = np.zeros((200, 200, 3), np.float32)
    view = View(stages, image, TilePolicy())
    stages.backend.calls.clear()
    view.render(4.0)
    # 12 bytes of features per LR pixel: 4 MiB of them are 349 525 output pixels, 436 rows of 800.
    assert stages.backend.calls.count("render") == 2
