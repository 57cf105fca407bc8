"""Pictures on a device: what crosses its border, how often, and that the pixels are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_stand_in import EngineBackend, Memory

from scaleport.bundle.reader import open_bundle
from scaleport.errors import BackendError, NotFiniteError, UsageError
from scaleport.grid import Axis, Grid
from scaleport.imaging.convert import Layout
from scaleport.imaging.resample import support
from scaleport.runtimes.arrays import HOST
from scaleport.runtimes.base import SessionOptions, host
from scaleport.runtimes.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeSession
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.tiling import TilePolicy, cut
from scaleport.runtimes.torch_arrays import torch_arrays
from scaleport.runtimes.upscaler import BundleSource, Upscaler, load

LAYOUTS = [Layout(c, np.dtype(t)) for c in (0, 1, 2, 3, 4) for t in ("u1", "u2", "f4")]


def noise(*shape, dtype=np.uint8):
    values = np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)
    return values if dtype == np.uint8 else values.astype(dtype) / np.float32(255)


def on_device(bundle, monkeypatch, most_images=2, **policy):
    backend = EngineBackend(monkeypatch, most_images)
    source = BundleSource(open_bundle(bundle))
    stages = Stages(source, backend, backend.availability(), "fp32", SessionOptions())
    return Upscaler(stages, TilePolicy(**policy)), backend


@pytest.mark.parametrize("network", ["igconv", "liif"])
@pytest.mark.parametrize("scale", [2.0, 2.7, (2.0, 3.5)])
@pytest.mark.parametrize("tile", [0, 16])
def test_host_memory_sees_the_image_once_and_the_pixels_once(
    tiny_bundle, monkeypatch, network, scale, tile
):
    image = noise(40, 37, 3)
    up, backend = on_device(tiny_bundle(network), monkeypatch, tile=tile)
    found = up(image, scale)
    wanted = load(tiny_bundle(network), "onnxruntime", "fp32")(image, scale)
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1  # a tie may round either way
    assert (found != wanted).mean() < 1e-3
    memory = backend.memory
    pixels = [size for shape, _, size in memory.up if len(shape) == 3]
    assert sum(pixels) == image.nbytes
    assert sum(size for _, _, size in memory.down) == found.nbytes
    tiles = [len(cut(n, tile, 0)) for n in image.shape[:2]]
    count = tiles[0] * tiles[1]
    stages = [stage for stage, _ in backend.calls]
    assert stages.count("encode") == count
    assert sum(stage.startswith("render") for stage in stages) == count
    # What else goes up: vectors of coordinates or weights, one per axis of a tile.
    others = sum(size for shape, _, size in memory.up if len(shape) < 3)
    rows, cols = found.shape[:2]
    if network == "liif":
        vectors = 8 * (tiles[1] * rows + tiles[0] * cols)  # an int32 and a float32 per sample
        assert others in (vectors, vectors + 8 * count)  # and the scale, where it is read
    elif scale == 2.0:
        assert others == 0
    else:
        assert others <= 12 * 8 * (tiles[1] * rows + tiles[0] * cols)


def test_a_second_region_sends_nothing_up_but_coordinates(tiny_bundle, monkeypatch):
    up, backend = on_device(tiny_bundle("liif"), monkeypatch)
    view = up.open(noise(40, 37, 3))
    view.render(2.7, region=(0, 0, 20, 20))
    backend.memory.up.clear()
    view.render(3.1, region=(10, 20, 50, 60))
    assert max(len(shape) for shape, _, _ in backend.memory.up) == 1


@pytest.mark.parametrize("most_images", [1, 2])
@pytest.mark.parametrize("network", ["igconv", "liif"])
def test_a_picture_with_alpha_on_engines(tiny_bundle, monkeypatch, network, most_images):
    image = noise(23, 31, 4)
    image[:9, :9, 3] = 255
    up, backend = on_device(tiny_bundle(network), monkeypatch, most_images)
    found = up(image, 2.7)
    wanted = load(tiny_bundle(network), "onnxruntime", "fp32")(image, 2.7)
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    assert (found != wanted).mean() < 1e-3
    assert {images for stage, images in backend.calls if stage == "encode"} == {most_images}
    assert len(backend.calls) == (2 if most_images == 2 else 4)


def test_alpha_that_is_all_the_same_costs_no_plane(tiny_bundle, monkeypatch):
    image = noise(20, 20, 4)
    image[..., 3] = 128
    up, backend = on_device(tiny_bundle("liif"), monkeypatch)
    found = up(image, 2.0)
    assert (found[..., 3] == 128).all()
    assert {images for stage, images in backend.calls if stage == "encode"} == {1}


def test_larger_pictures_make_the_scratch_memory_grow_and_smaller_ones_reuse_it(
    tiny_bundle, monkeypatch
):
    up, backend = on_device(tiny_bundle("igconv"), monkeypatch)
    for side in (16, 24, 16, 20):
        up(noise(side, side, 3), 2.0)
    contexts = backend.engines["encode"].contexts
    assert len(contexts) == 1
    scratch = up.stages.session("encode")._contexts._free[0]
    assert scratch._size == contexts[0].given
    grown = [size for size in backend.memory.reserved if size == scratch._size]
    assert len(grown) == 1, "memory for the largest picture is reserved once"


def test_sizes_outside_of_the_profile_are_refused_by_name(tiny_bundle, monkeypatch):
    up, _ = on_device(tiny_bundle("igconv"), monkeypatch, tile=0)
    with pytest.raises(UsageError, match=r"shape \[1, 3, 70, 8\] of input 'image' is outside"):
        up(noise(70, 8, 3), 2.0)


def test_a_size_that_shapes_depend_on_stays_in_host_memory(tiny_bundle, monkeypatch):
    up, backend = on_device(tiny_bundle("liif"), monkeypatch)
    image = noise(1, 3, 12, 10, dtype=np.float32)
    session = up.stages.session("whole_size")
    found = session.run({"image": image, "size": np.array([31, 27])})
    assert host(found["upscaled"]).shape == (1, 3, 31, 27)
    assert [shape for shape, _, _ in backend.memory.up] == [image.shape]


@pytest.mark.parametrize("stage", ["encode", "render"])
def test_no_numbers_are_found_on_the_device_and_blamed_on_the_stage(
    tiny_bundle, monkeypatch, stage
):
    up, _ = on_device(tiny_bundle("liif"), monkeypatch)
    session = up.stages.session(stage)
    right = session.run

    def wrong(feeds, keep=()):
        made = right(feeds, keep)
        for value in made.values():
            getattr(value, "native", value)[..., 0] = np.nan
        return made

    session.run = wrong
    with pytest.raises(NotFiniteError, match=f"stage '{stage}'"):
        up(noise(12, 12, 3), 2.0)


def test_a_session_says_that_it_is_closed(tiny_bundle, monkeypatch):
    up, _ = on_device(tiny_bundle("igconv"), monkeypatch)
    up(noise(12, 12, 3), 2.0)
    session = up.stages.session("encode")
    up.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})


# ---------------------------------------------------------------- arithmetic


@pytest.fixture(params=["numpy", "torch"])
def arrays(request):
    return Memory() if request.param == "numpy" else torch_arrays("cpu")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda v: f"{v.channels}{v.dtype}")
def test_pixels_become_planes_and_back_as_on_the_host(arrays, layout):
    shape = (7, 9, layout.channels) if layout.channels else (7, 9)
    rng = np.random.default_rng(1)
    pixels = (rng.random(shape) * (1 if layout.dtype.kind == "f" else 65535)).astype(layout.dtype)
    wanted = HOST.planes(pixels, layout)
    planes = arrays.planes(arrays.upload(pixels), layout)
    np.testing.assert_array_equal(arrays.download(planes), wanted)
    beyond = rng.uniform(-0.2, 1.2, wanted.shape).astype(np.float32)
    made = arrays.download(arrays.pixels(arrays.upload(beyond), layout))
    assert made.dtype == layout.dtype
    if layout.channels in (3, 4) and layout.dtype.kind == "u":
        np.testing.assert_array_equal(made[..., :3], HOST.pixels(beyond, layout)[..., :3])
    else:  # a mean of three values may be summed in another order
        np.testing.assert_allclose(
            made, HOST.pixels(beyond, layout), atol=1 if made.dtype.kind == "u" else 1e-6
        )


def test_the_reduction_is_that_of_the_host(arrays):
    lattice = noise(2, 3, 40, 33, dtype=np.float32)
    rows, cols = Axis(40, 27, 3, 20), Axis(33, 30, 0, 30)
    (y0, y1), (x0, x1) = support(rows, "replicate"), support(cols, "replicate")
    read = lattice[:, :, y0:y1, x0:x1]
    rows, cols = replace(rows, origin=y0), replace(cols, origin=x0)
    wanted = HOST.reduced(read, rows, cols)
    found = arrays.download(arrays.reduced(arrays.upload(read), rows, cols))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-7)


def test_weights_opacity_and_flat_alpha_are_those_of_the_host(arrays):
    planes = noise(2, 3, 8, 6, dtype=np.float32)
    rows, cols = np.linspace(0, 1, 8, dtype="f4"), np.linspace(1, 0, 6, dtype="f4")
    alpha, flat = noise(3, 4, 3, dtype=np.float32), noise(4, 3) > 128
    ys, xs = np.arange(8) // 2, np.arange(6) // 2
    up = arrays.upload
    for found, wanted in (
        (arrays.weighted(up(planes), rows, cols), HOST.weighted(planes, rows, cols)),
        (arrays.with_opacity(up(planes[:1]), 0.25), HOST.with_opacity(planes[:1], 0.25)),
        (
            arrays.settled(up(planes), alpha, flat, ys, xs),
            HOST.settled(planes, alpha, flat, ys, xs),
        ),
    ):
        np.testing.assert_array_equal(arrays.download(found), wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found(arrays, bad):
    planes = np.full((1, 3, 50, 40), np.float32(3e38))
    for one in (arrays, HOST):
        assert bool(one.finite(one.upload(planes))), "a sum may overflow, the values do not"
    planes[0, 1, 2, 3] = bad
    for one in (arrays, HOST):
        assert not bool(one.finite(one.upload(planes)))


def test_onnx_runtime_takes_and_leaves_values_by_address(tiny_bundle):
    """The code of its CUDA provider, with PyTorch's memory of the processor for the GPU's."""
    up = load(tiny_bundle("igconv"), "onnxruntime", "fp32")
    plain = up.stages.session("encode")
    bound = OnnxRuntimeSession(plain._session, torch_arrays("cpu"))
    image = noise(1, 3, 12, 10, dtype=np.float32)
    kept = bound.run({"image": image}, keep=("feature",))["feature"]
    assert not isinstance(kept, np.ndarray)
    assert (kept.shape, kept.dtype, kept.nbytes) == ((1, *kept.shape[1:]), np.float32, kept.nbytes)
    wanted = plain.run({"image": image})["feature"]
    np.testing.assert_array_equal(kept.numpy(), wanted)
    np.testing.assert_array_equal(np.from_dlpack(kept.native), wanted)
    render = up.stages.session("render_x2")
    pixels = OnnxRuntimeSession(render._session, torch_arrays("cpu")).run({"feature": kept})
    np.testing.assert_allclose(
        pixels["upscaled"], render.run({"feature": wanted})["upscaled"], atol=1e-6
    )


def test_float32_on_cuda_is_asked_for_without_tf32(monkeypatch, tiny_bundle):
    """The provider's options, from a build of ONNX Runtime that says it has CUDA."""
    import onnxruntime

    given = []
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    real = onnxruntime.InferenceSession

    def session(path, settings, providers, **rest):
        given.append(providers[0])
        return real(path, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    bundle = tiny_bundle("igconv")
    for asked in ("", "fp32", "tf32"):
        load(bundle, "onnxruntime", "fp32", inference_precision=asked).stages.session("encode")
    names, options = zip(*given, strict=True)
    assert set(names) == {"CUDAExecutionProvider"}
    assert [each["use_tf32"] for each in options] == ["0", "0", "1"]
    assert {each["cudnn_conv_algo_search"] for each in options} == {"HEURISTIC"}
    assert OnnxRuntimeBackend().work(SessionOptions()).equal_tiles
    assert not OnnxRuntimeBackend().work(SessionOptions(device="CPUExecutionProvider")).equal_tiles


def test_tiles_of_equal_shape_make_the_same_pixels(tiny_bundle, monkeypatch):
    image = noise(61, 45, 3)
    up, backend = on_device(tiny_bundle("liif"), monkeypatch, tile=20)
    found = up(image, 2.7)
    wanted = load(tiny_bundle("liif"), "onnxruntime", "fp32", policy=TilePolicy(tile=0))(image, 2.7)
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
    shapes = {context.shapes["image"] for context in backend.engines["encode"].contexts}
    assert len(shapes) == 1
    assert Grid.from_scale(61, 45, 2.7).output_size == found.shape[:2]
