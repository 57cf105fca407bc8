import msgspec
import pytest
import yaml
from training_samples import tiny_recipe

from scaleport.errors import UsageError
from scaleport.training.recipe import load_recipe
from scaleport.training.shipped import RECIPES, find_recipe, shipped_recipes


def written(tmp_path, recipe):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe))
    return path


def test_reads_what_was_written(tmp_path):
    recipe = load_recipe(written(tmp_path, tiny_recipe()))
    assert recipe.scales.set == (2, 3)
    assert recipe.optimiser.warmup == 2
    assert recipe.optimiser.schedule == "cosine"


def test_accepts_exponents_without_a_point(tmp_path):
    text = yaml.safe_dump(tiny_recipe()).replace("lr: 0.001", "lr: 1e-3")
    assert "1e-3" in text
    assert load_recipe(written(tmp_path, text)).optimiser.lr == 0.001


SHIPPED = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in shipped_recipes()]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_fit_their_network(name):
    pytest.importorskip("torch")
    from scaleport.training.objective import recipe_network, supervision_of

    recipe = load_recipe(find_recipe(name))
    network = recipe_network(recipe)
    supervision_of(network, recipe)
    if name.startswith("paper/"):
        assert "arXiv" in recipe.paper or "CVPR" in recipe.paper
        assert recipe.steps >= 100_000
    elif name.startswith("smoke/") or name.endswith(("-s", "-any", "-small")):
        assert network.parameter_count() < 300_000


def test_every_upsampler_family_has_a_smoke_recipe_and_a_paper_recipe():
    def families(folder):
        pytest.importorskip("torch")
        from scaleport.training.objective import recipe_network

        recipes = [load_recipe(path) for path in (RECIPES / folder).glob("*.yaml")]
        return {recipe_network(recipe).config["upsampler"]["name"] for recipe in recipes}

    every = {"igconv-plus", "liif", "ipe-liif", "metasr", "hiif-light", "msit", "kriging", "spconv"}
    assert families("smoke") >= every
    assert {load_recipe(p).model for p in (RECIPES / "paper").glob("c2d-swinir*.yaml")} == {
        "c2d-swinir-light-stage1",
        *(f"c2d-swinir-light-x{s}" for s in (2, 3, 4)),
    }


def test_unknown_composition_names_near_ones(tmp_path):
    pytest.importorskip("torch")
    from scaleport.training.objective import recipe_network

    recipe = load_recipe(written(tmp_path, tiny_recipe(model="edsr-basline-liif")))
    with pytest.raises(UsageError, match="edsr-baseline-liif"):
        recipe_network(recipe)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stpes": 5}, "stpes"),
        ({"optimiser": {"lr": 1e-3, "beta": 1}}, "beta.*optimiser"),
        ({"optimiser": {"schedule": "linear"}}, "linear"),
        ({"steps": "many"}, "steps"),
        ({"steps": 0}, "steps"),
        ({"scales": {}}, "either"),
        ({"scales": {"set": [2], "range": [1, 2]}}, "either"),
        ({"scales": {"range": [3, 2]}}, "low <= high"),
        ({"scales": {"set": [0]}}, "integers"),
        ({"ema": 1.0}, "ema"),
        ({"downscale": {"smallest": 0}}, "downscale"),
        ({"downscale": {"smallest": 0.9, "largest": 0.5}}, "downscale"),
        ({"loss": {"fft": -1}}, "loss"),
        ({"scales": {"set": [2], "per": "image"}}, "image"),
        ({"degradation": "area"}, "area"),
        ({"validation": {"every": 0}}, "validation"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path, changes, message):
    path = written(tmp_path, tiny_recipe(**changes))
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "just text", "", "- 1\n- 2"])
def test_what_is_no_recipe(tmp_path, text):
    with pytest.raises(UsageError) as caught:
        load_recipe(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"igconv-small.*liif-small"):
        find_recipe("none")
    with pytest.raises(UsageError, match=r"similar name: smoke/liif\b"):
        find_recipe("smoke/lif")
    assert find_recipe("liif-small").is_file()


def test_recipes_survive_a_round_trip():
    for path in shipped_recipes():
        recipe = load_recipe(path)
        assert msgspec.json.decode(msgspec.json.encode(recipe), type=type(recipe)) == recipe
