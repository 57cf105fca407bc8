"""Tiles show no seams: tiled output is the untiled output, and the halo is what makes it so."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from scaleport.models.network import build_network
from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy, View
from scaleport.validation.parity.drift import RevisedSource
from scaleport.validation.pictures import picture

HEIGHT, WIDTH, SCALE = 333, 500, 2.7
UNTILED = TilePolicy(tile=0, render_pixels=1 << 30)
TILED = TilePolicy(tile=100)
MODELS = {
    "liif": {"name": "liif", "hidden": [16, 16]},
    "igconv": {"name": "igconv", "latent": 16, "hidden_layers": 2},
}

# What a view adds to the field for the reduction from the lattice.
BEYOND = {"liif": 0, "igconv": 3}


def edsr(upsampler, width=8, blocks=3, positive=False):
    torch.manual_seed(3)
    encoder = {"name": "edsr", "width": width, "blocks": blocks}
    network = build_network({"encoder": encoder, "upsampler": MODELS[upsampler]})
    if positive:
        # Averages: nothing cancels, no ReLU closes, and the farthest pixel still counts.
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                    module.weight.fill_(1 / module.weight[0].numel())
                    module.bias.zero_()
    return network


def worst(a, b) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def with_halo(stages, radius):
    """The same graphs with another receptive field in the manifest."""
    manifest = msgspec.structs.replace(stages.manifest, receptive_field=radius)
    return stages.of(RevisedSource(stages.source, manifest))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", list(MODELS))
def test_tiled_is_untiled(tiny_bundle, name, backend):
    stages = load(tiny_bundle(name), backend, "fp32").stages
    image = picture(HEIGHT, WIDTH)
    whole = View(stages, image, UNTILED).render(SCALE)
    assert whole.shape == (1, 3, 899, 1350)
    assert worst(View(stages, image, TILED).render(SCALE), whole) <= 1e-5


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("scale", [SCALE, 3.0, (2.0, 3.5)])
def test_a_region_is_the_crop_of_the_whole(tiny_bundle, name, scale):
    stages = load(tiny_bundle(name), "openvino", "fp32").stages
    image = picture(60, 90)
    whole = View(stages, image, UNTILED).render(scale)
    for policy in (UNTILED, TilePolicy(tile=32, render_pixels=3000)):
        view = View(stages, image, policy)
        for y0, x0, y1, x1 in [(0, 0, 40, 50), (77, 31, 113, 170), (119, 179, 120, 180)]:
            part = view.render(scale, region=(y0, x0, y1, x1))
            assert worst(part, whole[:, :, y0:y1, x0:x1]) <= 1e-5


@pytest.fixture(scope="module", params=list(MODELS))
def positive(request, torch_bundle):
    """Stages of a network whose weights hide nothing, and its name."""
    bundle = torch_bundle(edsr(request.param, positive=True), precisions=("fp32",))
    return load(bundle, "torch", "fp32").stages, request.param


@pytest.mark.parametrize("scale", [SCALE, 4.0, 1.0])
def test_a_smaller_halo_shows(positive, scale):
    """So the measured field is neither luck nor slack."""
    stages, name = positive
    image = picture(64, 50)
    whole = View(stages, image, UNTILED).render(scale)
    size = float(np.abs(whole).max())
    policy = TilePolicy(tile=32)
    radius = stages.manifest.receptive_field
    assert worst(View(stages, image, policy).render(scale), whole) <= 1e-5 * size
    small = with_halo(stages, radius - BEYOND[name] - 4)
    assert worst(View(small, image, policy).render(scale), whole) > 1e-4 * size


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_edsr_baseline_has_no_seams(torch_bundle, name):
    bundle = torch_bundle(edsr(name, width=64, blocks=16), precisions=("fp32",))
    stages = load(bundle, "torch", "fp32").stages
    assert stages.manifest.receptive_field == {"liif": 36, "igconv": 35}[name]
    image = picture(HEIGHT, WIDTH)
    whole = View(stages, image, TilePolicy(tile=0)).render(SCALE)
    tiled = View(stages, image, TilePolicy(tile=256)).render(SCALE)
    assert worst(tiled, whole) <= 1e-5
