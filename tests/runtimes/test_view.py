"""Views: layouts and types of pictures, tiles, regions, and what is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_backend import blur, numpy_stages, repeat, write_bundle

from scaleport.bundle.manifest import ScaleRange, SizeRange
from scaleport.errors import BackendError, ImageError, ScaleError
from scaleport.grid import output_length
from scaleport.runtimes.view import TilePolicy, View

UNTILED = TilePolicy(tile=0, render_pixels=1 << 30)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def query(root):
    return numpy_stages(write_bundle(root / "query.bundle"))


@pytest.fixture(scope="module")
def lattice(root):
    return numpy_stages(write_bundle(root / "lattice.bundle", "lattice", frozen=(2, 3)))


def noise(height, width, batch=1):
    rng = np.random.default_rng(height * 1000 + width)
    return rng.random((batch, 3, height, width), dtype=np.float32)


SIZES = st.tuples(st.integers(1, 50), st.integers(1, 50))
SCALES = st.tuples(st.floats(0.5, 4.0), st.floats(0.5, 4.0))


@settings(max_examples=60, deadline=None)
@given(SIZES, SCALES, st.integers(1, 25), st.integers(1, 900), st.data())
def test_tiles_and_regions_of_a_query_model(query, size, scale, tile, pixels, data):
    image = noise(*size)
    whole = View(query, image, UNTILED).render(scale)
    rows, cols = (output_length(n, s) for n, s in zip(size, scale, strict=True))
    assert whole.shape == (1, 3, rows, cols)
    view = View(query, image, TilePolicy(tile=tile, render_pixels=pixels))
    np.testing.assert_array_equal(view.render(scale), whole)
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, cols))
    part = view.render(scale, region=(y0, x0, y1, x1))
    np.testing.assert_array_equal(part, whole[:, :, y0:y1, x0:x1])


@settings(max_examples=60, deadline=None)
@given(SIZES, st.tuples(st.floats(0.5, 3.0), st.floats(0.5, 3.0)), st.integers(1, 25), st.data())
def test_tiles_and_regions_of_a_lattice_model(lattice, size, scale, tile, data):
    rows, cols = (output_length(n, s) for n, s in zip(size, scale, strict=True))
    image = noise(*size)
    whole = View(lattice, image, UNTILED).render(scale)
    assert whole.shape == (1, 3, rows, cols)
    view = View(lattice, image, TilePolicy(tile=tile))
    np.testing.assert_allclose(view.render(scale), whole, rtol=0, atol=2e-6)
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    part = view.render(scale, region=(y0, x0, rows, cols))
    np.testing.assert_allclose(part, whole[:, :, y0:, x0:], rtol=0, atol=2e-6)


def test_native_scale_is_the_lattice_itself(lattice):
    image = noise(9, 7)
    np.testing.assert_array_equal(View(lattice, image, UNTILED).render(3.0), repeat(blur(image), 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("family", ["query", "lattice"])
def test_layout_and_type_come_back(query, lattice, family, channels, dtype):
    full = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    # A constant per channel stays what it is, so a mixed-up channel shows.
    levels = {None: [3], 1: [3], 2: [3, 1], 3: [3, 2, 1], 4: [3, 2, 1, 4]}[channels]
    values = (np.array(levels) * full / 5).astype(dtype)
    shape = (11, 13) if channels is None else (11, 13, channels)
    image = np.broadcast_to(values, shape) if channels else np.full(shape, values[0])
    stages = query if family == "query" else lattice
    for policy in (UNTILED, TilePolicy(tile=5)):
        out = View(stages, image, policy).render(2.0)
        assert out.shape == (22, 26, *shape[2:])
        assert out.dtype == (np.float32 if full == 1.0 else dtype)
        wide = np.broadcast_to(values if channels else values[0], out.shape)
        np.testing.assert_allclose(out, wide.astype(out.dtype), rtol=0, atol=2e-6 * full)


def test_integers_are_rounded_and_clipped_and_floats_are_neither(root, monkeypatch):
    stages = numpy_stages(root / "query.bundle")
    monkeypatch.setattr(
        stages, "render_query", lambda f, g, check: np.full((1, 3, 4, 4), 1.3, np.float32)
    )
    assert View(stages, np.zeros((4, 4, 3), np.uint8), UNTILED).render(1.0).max() == 255
    assert View(stages, np.zeros((4, 4, 3), np.uint16), UNTILED).render(1.0).max() == 65535
    floats = View(stages, np.zeros((4, 4, 3), np.float32), UNTILED).render(1.0)
    assert floats.max() == np.float32(1.3)


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_an_even_alpha_stays_as_it_is(query, opacity):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    image[:, :, 3] = opacity
    out = View(query, image, UNTILED).render(2.5)
    assert (out[:, :, 3] == opacity).all()
    np.testing.assert_array_equal(out[:, :, :3], View(query, image[:, :, :3], UNTILED).render(2.5))


def test_alpha_is_a_picture_of_its_own(query):
    rng = np.random.default_rng(5)
    image = rng.random((8, 9, 4), dtype=np.float32)
    out = View(query, image, UNTILED).render(2.5)
    colour = View(query, image[:, :, :3], UNTILED).render(2.5)
    alpha = View(query, image[:, :, 3], UNTILED).render(2.5)
    np.testing.assert_array_equal(out[:, :, :3], colour)
    np.testing.assert_allclose(out[:, :, 3], alpha, rtol=0, atol=1e-6)


def test_batches_stay_batches(query):
    images = noise(8, 9, batch=3)
    out = View(query, images, TilePolicy(tile=4)).render(1.7)
    for i in range(3):
        np.testing.assert_array_equal(
            out[i : i + 1], View(query, images[i : i + 1], UNTILED).render(1.7)
        )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 4, 5, 5), np.float32),
        np.zeros((1, 3, 5, 5), np.int32),
        np.zeros((0, 3, 5, 5), np.float32),
        np.zeros((1, 3, 5, 0), np.float32),
        np.zeros((5, 5, 5), np.float32),
    ],
)
def test_what_is_no_image_is_refused(query, image):
    with pytest.raises(ImageError):
        View(query, image, UNTILED)


def test_size_instead_of_scale(query):
    image = noise(10, 12)
    view = View(query, image, UNTILED)
    assert view.render(size=(23, 31)).shape == (1, 3, 23, 31)
    np.testing.assert_array_equal(view.render(size=(20, 42)), view.render((2.0, 3.5)))


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"scale": 2.0, "size": (20, 24)},
        {"scale": 4.01},
        {"scale": (2.0, 0.4)},
        {"size": (41, 20)},
        {"size": (20, 5)},
        {"scale": 2.0, "region": (0, 0, 21, 4)},
        {"scale": 2.0, "region": (5, 0, 5, 4)},
        {"scale": 2.0, "region": (-1, 0, 5, 4)},
    ],
)
def test_requests_out_of_range(query, request_):
    with pytest.raises(ScaleError):
        View(query, noise(10, 12), UNTILED).render(**request_)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("stage", ["encode", "render"])
def test_nan_from_a_backend_is_an_error(root, monkeypatch, stage, bad):
    stages = numpy_stages(root / "query.bundle")
    session = stages.session(stage)
    right = session.run

    def wrong(feeds, keep=()):
        outputs = right(feeds)
        next(iter(outputs.values()))[0, 1, 2, 3] = bad
        return outputs

    monkeypatch.setattr(session, "run", wrong)
    with pytest.raises(BackendError, match=f"NaN or infinity.*stage '{stage}' .fp32.*try"):
        View(stages, noise(10, 12), UNTILED).render(2.0)


def test_second_rendering_encodes_nothing(root):
    stages = numpy_stages(root / "query.bundle")
    view = View(stages, noise(20, 20), TilePolicy(tile=10))
    view.render(2.0)
    assert stages.backend.calls.count("encode") == 4
    view.render(3.3, region=(0, 0, 20, 66))
    assert stages.backend.calls.count("encode") == 4


def test_cache_keeps_to_its_limit(root):
    stages = numpy_stages(root / "query.bundle")
    view = View(stages, noise(20, 20), TilePolicy(tile=10, cache_bytes=1))
    whole = view.render(2.0)
    np.testing.assert_array_equal(view.render(2.0), whole)
    assert stages.backend.calls.count("encode") == 8


def test_a_region_encodes_only_the_tiles_it_touches(root):
    stages = numpy_stages(root / "query.bundle")
    seen = []
    view = View(stages, noise(40, 40), TilePolicy(tile=10))
    view.render(
        2.0, region=(0, 0, 20, 21), progress=lambda done, total, _: seen.append((done, total))
    )
    assert stages.backend.calls.count("encode") == 2
    assert seen == [(1, 2), (2, 2)]


def test_no_crop_is_larger_than_graphs_allow(root):
    sizes = SizeRange(min=1, opt=8, max=14)
    stages = numpy_stages(write_bundle(root / "short.bundle", height=sizes, width=sizes))
    shapes = []
    encode = stages.encode
    stages.encode = lambda image, *rest: shapes.append(image.shape[2:]) or encode(image, *rest)
    image = noise(40, 9)
    out = View(stages, image, UNTILED).render(1.5)
    assert max(h for h, _ in shapes) <= 14
    assert {w for _, w in shapes} == {9}
    free = numpy_stages(root / "query.bundle")
    np.testing.assert_array_equal(out, View(free, image, UNTILED).render(1.5))


def test_a_model_that_cannot_be_tiled_is_not(root):
    stages = numpy_stages(write_bundle(root / "global.bundle", tiling="not-allowed"))
    View(stages, noise(40, 40), TilePolicy(tile=5)).render(2.0)
    assert stages.backend.calls.count("encode") == 1


def test_beyond_the_largest_native_scale(root):
    wide = ScaleRange(min=1.0, max=8.0, native=(2, 3))
    path = write_bundle(root / "wide.bundle", "lattice", frozen=(2, 3), scale=wide)
    with pytest.raises(ScaleError, match="x3 at most"):
        View(numpy_stages(path), noise(6, 6), UNTILED).render(4.0)


def test_shape_of_the_opened_image(query):
    assert View(query, np.zeros((7, 9, 3), np.uint8), UNTILED).shape == (7, 9)
