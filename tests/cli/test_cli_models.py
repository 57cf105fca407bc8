"""Models by name: where they are looked for, and what the package says of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import scaleport
from scaleport import ready
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.card import read_card
from scaleport.errors import ArtifactError, UsageError
from scaleport.export_cache import keep
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.shipped import shipped_weights

GOLDEN = Path(scaleport.__file__).parent / "golden/tile.bundle"
PIXELS = np.random.default_rng(4).integers(0, 256, (11, 14, 3), np.uint8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a cache of its own, which is the current one."""
    monkeypatch.setenv("SCALEPORT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's own, with one bundle of the default model's name."""
    folder = tmp_path / "ready"
    shutil.copytree(GOLDEN, folder / f"{ready.DEFAULT}.bundle")
    monkeypatch.setattr(ready, "READY", folder)
    ready._range.cache_clear()
    ready._checkpoints.cache_clear()
    yield folder
    ready._range.cache_clear()
    ready._checkpoints.cache_clear()


def test_a_path_wins_over_a_bundle_here_and_that_over_the_package_and_that_over_the_cache(
    place, package
):
    name = ready.DEFAULT
    keep("a" * 64, GOLDEN, name)
    cached = place.parent / "cache/exports" / ("a" * 64) / f"{name}.bundle"
    assert cached.is_dir()
    shutil.move(package / f"{name}.bundle", place.parent / "aside")
    assert ready.find_bundle(name) == cached
    shutil.move(place.parent / "aside", package / f"{name}.bundle")
    assert ready.find_bundle(name) == package / f"{name}.bundle"
    shutil.copytree(GOLDEN, f"{name}.bundle")
    assert ready.find_bundle(name) == Path(f"{name}.bundle")
    Path(name).mkdir()
    assert ready.find_bundle(name) == Path(name)


def test_names_are_looked_for_by_whoever_opens_a_bundle(place):
    keep("b" * 64, GOLDEN, "mine")
    up = scaleport.load("mine", backend="onnxruntime")
    assert up(PIXELS, 2).shape == (22, 28, 3)
    assert [model.name for model in ready.models()][-1] == "mine"
    own = ready.model("mine")
    assert (own.purpose, own.card, own.scale) == ("", None, (1.0, 4.0))
    with pytest.raises(UsageError, match=r"no model mime \(did you mean mine\?\)"):
        ready.model("mime")


@pytest.mark.parametrize("given", ["folder/scaleport-s", "../scaleport-s", "", ".", "/"])
def test_only_a_name_is_one(place, given):
    assert ready.find_bundle(given) == Path(given)


def test_the_default_model_is_the_one_that_makes_the_scale(place, package):
    for scale in (None, 1.0, 2.0, 4.0):
        assert ready.default_model(scale) == ready.DEFAULT
    assert ready.default_model(4.1) == ready.DEFAULT, "no other model is there"
    shutil.copytree(GOLDEN, package / f"{ready.DEFAULT_BEYOND}.bundle")
    assert ready.default_model(4.1) == ready.DEFAULT_BEYOND
    shutil.rmtree(package)
    with pytest.raises(UsageError, match="make models"):
        ready.default_model()


def test_a_bundle_of_the_package_finds_its_checkpoint_beside_and_refuses_another_one(
    place, package
):
    bundle = package / f"{ready.DEFAULT}.bundle"
    manifest = read_manifest(bundle)
    weights = shipped_weights()[ready.DEFAULT]
    made = ready.ready_checkpoint
    assert made(GOLDEN, manifest.name) is None
    with pytest.raises(ArtifactError, match="make models"):
        made(bundle, ready.DEFAULT)
    ready._checkpoints.cache_clear()
    (package / ready.CHECKPOINTS).write_text(
        json.dumps({ready.DEFAULT: sha256_file(weights).sha256})
    )
    assert made(bundle, ready.DEFAULT) == weights


def test_upscale_needs_nothing_but_a_picture(run, place, package):
    save_image("photo.jpg", Image(PIXELS))
    ran = run("upscale photo.jpg")
    assert (ran.code, ran.err) == (0, "")
    assert load_image("photo_x2.png").pixels.shape == (22, 28, 3)
    assert run("upscale photo.jpg --width 30").code == 0
    assert load_image("photo_w30.png").pixels.shape[1] == 30
    assert run("upscale photo.jpg -m tile -s 3").code == 2


def test_names_can_be_given_to_every_verb_that_takes_a_bundle(run, place):
    keep("c" * 64, GOLDEN, "mine")
    assert run("inspect mine").out.startswith(str(ready.find_bundle("mine")))
    assert run("doctor mine --backend onnxruntime").code == 0
    assert run("serve-config mine --to kserve -o served").code == 0


def test_what_belongs_to_the_package_is_not_changed(run, place, package):
    bundle = package / f"{ready.DEFAULT}.bundle"
    before = (bundle / "manifest.json").read_bytes()
    line = f"validate {ready.DEFAULT} --quick --backend onnxruntime"
    assert run(f"{line}").code == 0
    ran = run(f"{line} --store")
    assert (ran.code, "copy it first" in ran.err) == (2, True)
    assert (bundle / "manifest.json").read_bytes() == before


def test_cards_give_scores_and_limits():
    for name in ready.PURPOSES:
        card = read_card(shipped_weights()[name].with_suffix(".md"))
        assert "x2 " in card.headline and "x4 " in card.headline
        assert all(float(row["this network"]) > float(row["bicubic"]) for row in card.scores)
        gains = [float(row["this network"]) - float(row["bicubic"]) for row in card.scores]
        assert np.abs(np.subtract(gains, [float(row["gain"]) for row in card.scores])).max() < 0.015
        assert len(card.limits) > 80
        assert not set(card.summary + card.protocol + card.limits) & set("`\n")


@pytest.mark.parametrize("text", ["", "# name\n\nText.\n", "# n\n\nText.\n\n## Scores\n\nnone\n"])
def test_a_card_without_scores_is_refused(tmp_path, text):
    (tmp_path / "card.md").write_text(text)
    with pytest.raises(ArtifactError, match="card"):
        read_card(tmp_path / "card.md")


def test_the_package_holds_a_bundle_of_every_named_model_made_from_these_checkpoints(
    package_models,
):
    for name, path in package_models.items():
        bundle = open_bundle(path, verify="all")
        assert bundle.manifest.name == name
        assert bundle.checkpoint() == shipped_weights()[name]
        assert bundle.formats() == ("onnx", "openvino")
        assert {case.backend for case in bundle.manifest.parity.results} == {
            "onnxruntime",
            "openvino",
        }
        assert all(case.passed for case in bundle.manifest.parity.results)
    total = sum(
        path.stat().st_size
        for folder in (ready.READY, ready.READY.parent / "weights")
        for path in folder.rglob("*")
        if path.is_file()
    )
    assert total < 28e6


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_both_runtimes_run_the_models_of_the_package_and_agree(package_models, backend):
    pytest.importorskip(backend)
    for name in package_models:
        with scaleport.load(name, backend=backend) as up:
            made = up(PIXELS, 2.3)
        with scaleport.load(name, backend="torch") as up:
            expected = up(PIXELS, 2.3)
        assert np.abs(made.astype(int) - expected).max() <= 1


def test_models_are_listed_with_their_purpose_scores_and_limits(run, package_models):
    shown = run("models").out
    for name, purpose in ready.PURPOSES.items():
        assert name in shown and purpose in shown
    listed = run("models --json").json
    assert [one["name"] for one in listed["models"]] == list(ready.PURPOSES)
    assert all(one["limits"] and one["scores"] for one in listed["models"])
    for name in package_models:
        said = " ".join(run(f"inspect {name}").out.split())
        card = ready.model(name).card
        assert card.limits.split(":")[0] in said
        assert run(f"inspect {name} --json").json["scores"] == [dict(row) for row in card.scores]
