"""Recorded steps do what plain ones do; batches made ahead are the same batches."""

from __future__ import annotations

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.training.ahead import ahead  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.capture import CapturedSteps  # noqa: E402
from scaleport.training.data import Sampler  # noqa: E402
from scaleport.training.devices import make_fabric  # noqa: E402
from scaleport.training.loop import Trainer  # noqa: E402
from scaleport.training.objective import Objective, located, recipe_network  # noqa: E402
from scaleport.training.optimiser import fit_optimiser, make_optimiser, set_rate  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


def recipe_of(kind, **changes):
    return msgspec.convert(tiny_recipe(kind, **changes), Recipe)


def test_points_get_the_grid_of_their_own_scale(cache):
    """The loss on points of one side is that of the same pixels of a whole rendered patch."""
    recipe = recipe_of("liif", queries=0, scales={"set": [2]}, batch=3)
    network = recipe_network(recipe)
    measure = Objective(network, recipe.loss)
    losses = []
    for supervision in ("points", "image"):
        batch = Sampler(cache, [0, 2], recipe, supervision, False)[4]
        for group in batch:
            for name in ("lr", "target", "points"):
                group[name] = torch.from_numpy(group[name])
        losses.append(measure([located(group) for group in batch]))
    # At 0 queries the points are as many as the smallest patch has pixels: here all, shuffled.
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_without_cuda_steps_are_plain(cache, tmp_path):
    run = Trainer(recipe_of("igconv"), cache, tmp_path)
    assert "cpu has no CUDA graphs" in run.how_computed
    done = []
    steps = CapturedSteps(lambda groups: done.append(groups), torch.device("cpu"), done.clear)
    steps([{"lr": 1}])
    assert done == [[{"lr": 1}]]


def test_batches_ahead_are_all_batches(cache):
    sampler = Sampler(cache, [0, 2, 3], recipe_of("liif"), "points", True)
    batches = [sampler[step] for step in range(3)]
    for batch in batches:
        for group in batch:
            for name in ("lr", "target", "points"):
                group[name] = torch.from_numpy(group[name])
    made = list(ahead(batches, torch.device("cpu")))
    assert [len(batch) for batch in made] == [len(batch) for batch in batches]
    for one, other in zip(made, batches, strict=True):
        assert torch.equal(one[0]["points"], other[0]["points"])
        assert [tuple(part.shape) for part in one[0]["at"]] == [*[(2, 50)] * 4, (2, 2)]


def test_an_optimiser_of_another_device_goes_on():
    """A state that CUDA left: rates and counters are tensors there."""
    network = torch.nn.Linear(2, 1)
    recipe = recipe_of("igconv")
    optimiser = make_optimiser(network, recipe.optimiser, torch.device("cpu"))
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    state["param_groups"][0] |= {"lr": torch.tensor(0.25), "fused": True, "capturable": True}
    optimiser.load_state_dict(state)
    fit_optimiser(optimiser, torch.device("cpu"))
    group = optimiser.param_groups[0]
    assert (group["lr"], group["fused"], group["capturable"]) == (0.25, None, False)
    set_rate(optimiser, 0.5)
    before = network.weight.detach().clone()
    optimiser.step()
    assert group["lr"] == 0.5
    assert not torch.equal(before, network.weight)


def test_factors_come_in_levels(cache):
    """Five factors between 0.5 and 0.9 give a 20-pixel patch of crops of these sides alone."""
    changes = {"downscale": {"probability": 1.0, "only_lossy": False, "levels": 5}}
    changes["downscale"] |= {"smallest": 0.5, "largest": 0.9}
    recipe = recipe_of("igconv", scales={"set": [2]}, patch=10, **changes)
    sampler = Sampler(cache, [0, 2, 3], recipe)
    wanted = {sample.wanted for step in range(60) for sample in sampler.plan(step)}
    assert wanted <= {40, 33, 29, 25, 22, 20}
    assert len(wanted) >= 4


@needs_cuda
@pytest.mark.parametrize("kind", ["igconv", "liif"])
def test_a_replayed_run_ends_with_the_weights_of_a_plain_one(cache, tmp_path, kind):
    changes = {"steps": 24, "validation": {"images": 1, "crop": 24, "every": 100}}
    ends = []
    for name, refusal in (("plain", "asked"), ("recorded", "")):
        fabric = make_fabric("cuda", 1, 1, "auto", False)
        run = Trainer(recipe_of(kind, **changes), cache, tmp_path / name, fabric, resident=True)
        run._captured.refusal = refusal
        run.run()
        assert not run._captured.refusal or refusal
        assert run._captured.count == (0 if refusal else {"igconv": 2, "liif": 1}[kind])
        ends.append(run.network.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
