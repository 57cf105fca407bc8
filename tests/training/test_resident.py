"""Batches made on a device have the bits of those that the processor makes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.data import Sampler, Share  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402
from scaleport.training.reduction import reduce_patches, reduction_matrix  # noqa: E402
from scaleport.training.resident import Plans, Resident, reduce_corners  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["matlab", "pil"])
@pytest.mark.parametrize("size", [(20, 20), (31, 20), (40, 20), (53, 17), (160, 40)])
def test_the_reduction_has_the_same_bits_everywhere(method, size, device):
    length, side = size
    hr = np.random.default_rng(length).integers(0, 256, (3, length, length, 3), dtype=np.uint8)
    made = reduce_corners(torch.from_numpy(hr).to(device), [size] * 3, method).cpu().numpy()
    assert np.array_equal(made, reduce_patches(hr, side, method))


@pytest.mark.parametrize("size", [(20, 20), (29, 20), (40, 20), (61, 18), (100, 33)])
def test_pillow_bit_for_bit(size):
    length, side = size
    hr = np.random.default_rng(side).integers(0, 256, (2, length, length, 3), dtype=np.uint8)
    made = reduce_patches(hr, side, "pil")
    for one, patch in zip(made, hr, strict=True):
        expected = Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC)
        assert np.array_equal(one, np.asarray(expected))


@pytest.mark.parametrize("method", ["matlab", "pil"])
def test_sums_are_exact_in_any_order(method):
    """Weights are whole multiples of 2^-40 whose sums stay far below 2^53 of them."""
    for length, side in ((160, 40), (77, 40), (192, 48), (41, 40)):
        steps = reduction_matrix(length, side, method) * 2.0**40
        assert np.array_equal(steps, np.rint(steps))
        assert (np.abs(steps).sum(axis=1) * 255 < 2.0**50).all()
        np.testing.assert_allclose(steps.sum(axis=1), 2.0**40, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("degradation", ["matlab", "pil"])
@pytest.mark.parametrize("per", ["step", "sample"])
@pytest.mark.parametrize(
    ("supervision", "together"),
    [("image", False), ("square", False), ("points", False), ("points", True)],
)
def test_batches_are_the_samplers(cache, supervision, together, per, degradation, device):
    changes = {"batch": 12, "scales": {"range": [1, 3], "per": per}, "degradation": degradation}
    changes["downscale"] = {"probability": 0.7, "smallest": 0.6, "only_lossy": False}
    recipe = msgspec.convert(tiny_recipe("liif", **changes), Recipe)
    sampler = Sampler(cache, [0, 2, 3, 4], recipe, supervision, together, Share(1, 2))
    resident = Resident(cache, sampler, torch.device(device))
    plans = Plans(sampler)
    for step, made in enumerate(resident.batches((plans[step] for step in (3, 4, 5)), 3), 3):
        expected = sampler[step]
        assert len(made) == len(expected)
        for one, other in zip(made, expected, strict=True):
            assert (one["sides"], one["window"]) == (other["sides"], other["window"])
            for name in ("lr", "target", "points"):
                assert one[name].device.type == device
                assert np.array_equal(one[name].cpu().numpy(), other[name]), name


@pytest.mark.parametrize("kind", ["igconv", "liif"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_ends_with_the_same_weights(cache, tmp_path, kind, workers):
    recipe = msgspec.convert(tiny_recipe(kind), Recipe)
    for name, resident in (("stream", False), ("resident", True)):
        run = Trainer(recipe, cache, tmp_path / name, workers=workers, resident=resident)
        run.run(until=5)
        again = Trainer(recipe, cache, tmp_path / name, workers=workers, resident=resident)
        again.load_state()
        again.run()
    files = [tmp_path / name / "model.safetensors" for name in ("stream", "resident")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_degradations_stay_with_the_processor(cache, tmp_path):
    recipe = msgspec.convert({**tiny_recipe(), "degradations": {"clean": 0.5}}, Recipe)
    with pytest.raises(UsageError, match="without --resident"):
        Trainer(recipe, cache, tmp_path, resident=True).run()
