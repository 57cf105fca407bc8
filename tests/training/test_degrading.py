"""Degradations of a recipe: what they do to a batch, and what decides them."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.cli.main import app  # noqa: E402
from scaleport.errors import UsageError  # noqa: E402
from scaleport.training.cache import build_cache, split_holdout  # noqa: E402
from scaleport.training.data import Sampler, Share  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402
from scaleport.training.reduction import reduce_patches  # noqa: E402
from scaleport.training.validation import held_out_pairs  # noqa: E402

HARD = {
    "clean": 0.0,
    "twice": 0.5,
    "other_filter": 0.5,
    "blur": {"probability": 0.5},
    "resize": {"probability": 0.5},
    "noise": {"probability": 0.5},
    "compression": {"probability": 1.0, "quality": [5, 30], "webp": 0.3},
}


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


def sampler(cache, degradations=None, share=None, **changes):
    recipe = tiny_recipe(batch=6, scales={"range": [1, 3], "per": "sample"}, **changes)
    if degradations:
        recipe["degradations"] = degradations
    made = msgspec.convert(recipe, Recipe)
    made.check()
    return Sampler(cache, [0, 1, 2, 3], made, share=share)


def joined(groups, name):
    return [patch for group in groups for patch in group[name]]


def test_lr_changes_and_hr_does_not(cache):
    clean, hard = sampler(cache)[3], sampler(cache, HARD)[3]
    for before, after in zip(joined(clean, "target"), joined(hard, "target"), strict=True):
        assert np.array_equal(before, after)
    for before, after in zip(joined(clean, "lr"), joined(hard, "lr"), strict=True):
        assert after.dtype == np.uint8 and after.shape == before.shape
        assert not np.array_equal(before, after)


def test_a_share_stays_clean(cache):
    """Half of the samples come as they would without any degradation, bit for bit."""
    plain, half = sampler(cache), sampler(cache, {**HARD, "clean": 0.5})
    same = [
        np.array_equal(a, b)
        for step in range(20)
        for a, b in zip(joined(plain[step], "lr"), joined(half[step], "lr"), strict=True)
    ]
    assert 0.35 < np.mean(same) < 0.65


def test_seed_and_step_decide_them(cache):
    one, other = sampler(cache, HARD), sampler(cache, HARD)
    other[1], other[2]  # what was drawn before does not matter
    for a, b in zip(joined(one[7], "lr"), joined(other[7], "lr"), strict=True):
        assert np.array_equal(a, b)
    changed = joined(sampler(cache, HARD, seed=99)[7], "lr")
    assert any(not np.array_equal(a, b) for a, b in zip(joined(one[7], "lr"), changed, strict=True))


def test_processes_share_the_batch_that_one_would_see(cache):
    whole = joined(sampler(cache, HARD)[4], "lr")
    parts = [sampler(cache, HARD, Share(rank, 2))[4] for rank in (0, 1)]
    found = [patch for part in parts for patch in joined(part, "lr")]
    key = {patch.tobytes() for patch in whole}
    assert len(whole) == len(found) and key == {patch.tobytes() for patch in found}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"clean": 1.5}, "0 to 1"),
        ({"blur": {"sigma": [2.0, 1.0]}}, "low <= high"),
        ({"noise": {"sigma": [0.0, 1.0]}}, "low <= high"),
        ({"compression": {"quality": [0, 50]}}, "quality"),
    ],
)
def test_impossible_settings_are_refused(cache, wrong, reason):
    with pytest.raises(UsageError, match=reason):
        sampler(cache, wrong)


def test_show_draws_what_a_run_would_see(photos, tmp_path):
    recipe = tmp_path / "own.yaml"
    content = {**tiny_recipe(batch=6, scales={"set": [2]}), "degradations": HARD}
    recipe.write_text(json.dumps(content))  # JSON is YAML
    words = ["train", str(recipe), "--data", str(photos), "--work", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*words, "--show", "5", "--json"])
    assert result.exit_code == 0, result.output
    path = json.loads(result.stdout)["sheet"]
    sheet = np.asarray(Image.open(path))
    assert not (tmp_path / "run/model.safetensors").exists()

    made = msgspec.convert(content, Recipe)
    cache = build_cache(photos, tmp_path / "run")
    train, _ = split_holdout(len(cache), made.validation.images)
    (group,) = Sampler(cache, train, made)[0]
    side = len(group["lr"][0])
    # The first sample's LR, as squares, below its label.
    shown = sheet[14 : 14 + 160, :160]
    centre = (np.arange(side) * 160 + 80) // side
    assert np.array_equal(shown[np.ix_(centre, centre)], group["lr"][0])


def test_scores_on_the_way_are_of_degraded_pictures(cache):
    """The same ones every time; without degradations, the recipe's reduction alone."""
    hard, plain = sampler(cache, HARD).recipe, sampler(cache).recipe
    pairs = held_out_pairs(cache, [0, 2], hard)
    for (_, lr, hr), (_, again, _), (scale, clean, _) in zip(
        pairs,
        held_out_pairs(cache, [0, 2], hard),
        held_out_pairs(cache, [0, 2], plain),
        strict=True,
    ):
        assert np.array_equal(lr, again) and not np.array_equal(lr, clean)
        expected = reduce_patches(hr[None], len(hr) // scale, "matlab")[0]
        assert np.array_equal(clean, expected)
