"""Stages: graphs loaded when needed, constants once per scale, the general render path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy_backend import numpy_stages, write_bundle

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models.network import build_network
from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy, View
from scaleport.validation.pictures import picture

IMAGE = np.zeros((1, 3, 6, 7), np.float32)
UNTILED = TilePolicy(tile=0)


@pytest.fixture
def lattice(tmp_path):
    return numpy_stages(write_bundle(tmp_path / "m.bundle", "lattice", frozen=(2,)))


def test_nothing_is_loaded_before_it_is_needed(lattice):
    loaded = lattice.backend.loaded
    view = View(lattice, IMAGE, UNTILED)
    assert loaded == []
    view.render(2.0)
    assert [stage for stage, _ in loaded] == ["encode", "render_x2"]
    view.render(2.0)
    assert len(loaded) == 2


def test_constants_are_made_once_per_scale(lattice):
    for _ in range(3):
        View(lattice, IMAGE, UNTILED).render(3.0)
    assert lattice.backend.calls.count("prepare") == 1
    assert lattice.backend.calls.count("render") == 3
    lattice.constants(4)
    lattice.constants(3)
    assert lattice.backend.calls.count("prepare") == 2


def test_constants_are_not_kept_without_end(lattice):
    for scale in range(1, 34):
        lattice.constants(scale)
    lattice.constants(2)
    assert lattice.backend.calls.count("prepare") == 33
    lattice.constants(1)  # the oldest was dropped
    assert lattice.backend.calls.count("prepare") == 34


def test_frozen_scale_makes_no_constants(lattice):
    View(lattice, IMAGE, UNTILED).render(2.0)
    assert lattice.backend.calls == ["encode", "render_x2"]


def test_tiles_share_the_constants(lattice):
    View(lattice, IMAGE, TilePolicy(tile=3)).render(2.7)
    assert lattice.backend.calls.count("prepare") == 1
    assert lattice.backend.calls.count("render") > 1


def test_prepare_gets_centres_and_scale(lattice, monkeypatch):
    given = {}
    kernel = np.zeros((3, 4, 4, 9), np.float32)
    monkeypatch.setattr(
        lattice.session("prepare"),
        "run",
        lambda feeds, keep: given.update(feeds) or {"kernel": kernel},
    )
    lattice.constants(4)
    np.testing.assert_array_equal(given["subpixel"], np.float32([-0.75, -0.25, 0.25, 0.75]))
    np.testing.assert_array_equal(given["scale"], np.float32([4, 4]))


def test_missing_stage_names_what_there_is(lattice):
    with pytest.raises(UsageError, match="render_x3"):
        lattice.session("render_x3")
    assert lattice.has("render_x2")
    assert not lattice.has("render_x3")


@pytest.fixture(scope="module")
def partly_frozen(torch_bundle):
    """An IGConv network with kernel x2 written in, and x3 and x4 made when asked for."""
    torch.manual_seed(5)
    network = build_network(
        {
            "encoder": {"name": "edsr", "width": 8, "blocks": 1},
            "upsampler": {"name": "igconv", "latent": 16, "hidden_layers": 2},
        }
    ).eval()
    return network, torch_bundle(network, freeze_scales=(2,))


@pytest.mark.parametrize("scale", [2.0, 3.0, 4.0, 2.7, (2.0, 3.5)])
def test_scales_that_are_not_frozen(partly_frozen, scale):
    network, bundle = partly_frozen
    stages = load(bundle, "torch", "fp32").stages
    image = picture(11, 14)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image), Grid.from_scale(11, 14, scale)).numpy()
    found = View(stages, image, UNTILED).render(scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_torch_knows_the_exported_stages_only(partly_frozen):
    stages = load(partly_frozen[1], "torch", "fp32").stages
    assert stages.has("render_x2")
    assert not stages.has("render_x3")
    with pytest.raises(UsageError, match="no stage 'render_x3'"):
        stages.session("render_x3")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_general_path_of_exported_graphs(tiny_bundle, backend, monkeypatch):
    """``prepare`` and ``render`` of the graphs make what ``render_x3`` makes."""
    stages = load(tiny_bundle("igconv"), backend, "fp32").stages
    features = stages.encode(picture(9, 12))
    frozen = stages.render_lattice(features, 3)
    monkeypatch.setattr(stages, "has", lambda stage: not stage.startswith("render_x"))
    general = stages.render_lattice(features, 3)
    np.testing.assert_allclose(general, frozen, rtol=0, atol=1e-5)
