"""A larger network begins at the function of a smaller one, and all of it learns."""

from __future__ import annotations

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.grid import Grid  # noqa: E402
from scaleport.models import build_network, save_checkpoint  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.grow import grow_from  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402

UPSAMPLERS = {
    "igconv": {"name": "igconv", "scales": [2, 3], "latent": 16, "hidden_layers": 1},
    "igconv-plus": {
        "name": "igconv-plus",
        "scales": [2, 3],
        "latent": 16,
        "hidden_layers": 1,
        "sample_latent": 8,
        "sample_layers": 1,
    },
    "liif": {"name": "liif", "hidden": [12, 8]},
}


def network(upsampler, width, blocks):
    config = {
        "encoder": {"name": "edsr", "width": width, "blocks": blocks},
        "upsampler": UPSAMPLERS.get(upsampler, {"name": upsampler}),
    }
    return build_network(config)


@pytest.mark.parametrize("upsampler", list(UPSAMPLERS))
def test_same_function_and_everything_learns(upsampler, tmp_path):
    torch.manual_seed(3)
    small, large = network(upsampler, 6, 2), network(upsampler, 10, 4)
    save_checkpoint(small, tmp_path / "small.safetensors")
    image = torch.rand(2, 3, 9, 8)
    before = large(image, Grid.from_scale(9, 8, 2))
    start = grow_from(large, tmp_path / "small.safetensors")
    assert all(".body." in name for name in start.fresh)
    for scale in (2, 3) if upsampler != "liif" else (1, 2.7):
        grid = Grid.from_scale(9, 8, scale)
        expected = small(image, grid)
        torch.testing.assert_close(large(image, grid), expected, rtol=0, atol=1e-5)
    assert (before - small(image, Grid.from_scale(9, 8, 2))).abs().max() > 1e-3

    # The new channels and blocks join in within three steps: zeros get gradients from fresh
    # weights before them, then pass them on.
    optimiser = torch.optim.SGD(large.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        large(image, Grid.from_scale(9, 8, 2)).square().mean().backward()
        optimiser.step()
    for name, parameter in large.encoder.named_parameters():
        assert parameter.grad[6:].abs().max() > 0, name


def test_what_cannot_grow_is_refused(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(network("igconv", 6, 2), path)
    for other, reason in (
        (network("igconv", 4, 2), "larger"),
        (network("igconv", 6, 1), "more"),
        (network("igconv-plus", 6, 2), "another upsampler"),
        (network("liif", 8, 2), "another upsampler"),
        (network("metasr", 8, 2), "can grow"),
    ):
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(UsageError, match=reason):
            grow_from(other, path)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    wider = {**UPSAMPLERS["igconv"], "latent": 32}
    encoder = {"name": "edsr", "width": 8, "blocks": 2}
    with pytest.raises(UsageError, match="cannot grow"):
        grow_from(build_network({"encoder": encoder, "upsampler": wider}), path)
    mean = {"mean": [0.5, 0.5, 0.5], "std": 1.0}
    config = {"encoder": encoder, "upsampler": UPSAMPLERS["igconv"], "normalisation": mean}
    with pytest.raises(UsageError, match="normalisation"):
        grow_from(build_network(config), path)
    save_checkpoint(network("liif", 6, 2), path)
    wider = {"name": "liif", "hidden": [16, 8]}
    with pytest.raises(UsageError, match="cannot grow"):
        grow_from(build_network({"encoder": encoder, "upsampler": wider}), path)


def test_a_run_grows_and_its_first_step_is_the_small_network(photos, tmp_path):
    recipe = tiny_recipe(scales={"set": [2, 3]}, steps=1)
    recipe["model"]["encoder"] = {"name": "edsr", "width": 8, "blocks": 2}
    recipe["model"]["upsampler"] = UPSAMPLERS["igconv"]
    small = build_network({**recipe["model"], "encoder": {"name": "edsr", "width": 4, "blocks": 1}})
    path = tmp_path / "small.safetensors"
    save_checkpoint(small, path)
    made = msgspec.convert(recipe, Recipe)
    cache = build_cache(photos, tmp_path)
    run = Trainer(made, cache, tmp_path / "run", init=path, grow=True)
    image, grid = torch.rand(1, 3, 9, 8), Grid.from_scale(9, 8, 3)
    with torch.no_grad():
        got = run.network.eval()(image, grid)
        torch.testing.assert_close(got, small.eval()(image, grid), rtol=0, atol=1e-5)
