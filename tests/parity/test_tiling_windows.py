"""Tiles of networks of windows: windows lie where those of the image do, to the last row."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from scaleport.bundle.manifest import SizeRange
from scaleport.grid import Grid
from scaleport.models.network import build_network
from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy, View
from scaleport.validation.parity.drift import RevisedSource
from scaleport.validation.pictures import picture

# Reach is less than half of the overlap of 32 pixels, so that tiles agree where they fade.
SWINIR = {"name": "swinir", "width": 8, "depths": [2], "heads": 2, "window": 8}
NETWORKS = {
    "swinir-spconv": (SWINIR, {"name": "spconv", "scale": 2}),
    "swinir-spconv-plus": (SWINIR, {"name": "spconv-plus", "scale": 2, "width": 6}),
    "swinir-test-script": (
        {**SWINIR, "padding": "test-script"},
        {"name": "igconv", "latent": 16, "hidden_layers": 1, "scales": [2, 3]},
    ),
    "swinir-liif": (SWINIR, {"name": "liif", "hidden": [8]}),
    "srformer-spconv": ({**SWINIR, "name": "srformer"}, {"name": "spconv", "scale": 2}),
    "hit-sir-spconv": (
        {"name": "hit-sir", "width": 8, "blocks": 1, "heads": 2, "windows": [4, 6]},
        {"name": "spconv", "scale": 2},
    ),
}
STEPS = {"hit-sir-spconv": 12}
SIZE = (85, 107)
TILED = TilePolicy(tile=30)
UNTILED = TilePolicy(tile=0, render_pixels=1 << 30)


def network_of(name):
    encoder, upsampler = NETWORKS[name]
    network = build_network({"encoder": encoder, "upsampler": upsampler}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            if value.dim() > 1:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise * value[0].numel() ** -0.5)
    return network


def changed(stages, **fields):
    """The same graphs with another manifest."""
    manifest = msgspec.structs.replace(stages.manifest, **fields)
    return stages.of(RevisedSource(stages.source, manifest))


def worst(a, b) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


@pytest.mark.parametrize("name", list(NETWORKS))
@torch.no_grad()
def test_tiled_is_the_network(torch_bundle, name):
    network = network_of(name)
    stages = load(torch_bundle(network, precisions=("fp32",)), "torch", "fp32").stages
    assert stages.manifest.tile_step == STEPS.get(name, 8)
    assert stages.manifest.tiling == "approximate"
    image = picture(*SIZE)
    for scale in (2.0, 1.7):
        want = network(torch.from_numpy(image), Grid.from_scale(*SIZE, scale)).numpy()
        assert want.std() > 0.1
        size = max(1.0, float(np.abs(want).max()))
        for policy in (UNTILED, TILED):
            assert worst(View(stages, image, policy).render(scale), want) <= 1e-5 * size
        # And that is what the step of tiles is for.
        loose = View(changed(stages, tile_step=1), image, TILED).render(scale)
        assert worst(loose, want) > 1e-3 * size


def test_regions_of_whole_windows(torch_bundle):
    stages = load(torch_bundle(network_of("swinir-spconv"), precisions=("fp32",)), "torch").stages
    image = picture(*SIZE)
    whole = View(stages, image, UNTILED).render(2)
    for policy in (UNTILED, TILED):
        part = View(stages, image, policy).render(2, region=(101, 160, 170, 214))
        assert worst(part, whole[:, :, 101:170, 160:214]) <= 1e-5 * float(np.abs(whole).max())


@pytest.mark.parametrize(("most", "aligned"), [(100, True), (92, True), (91, False), (75, False)])
def test_crops_stay_within_what_graphs_were_built_for(torch_bundle, monkeypatch, most, aligned):
    stages = load(torch_bundle(network_of("swinir-spconv"), precisions=("fp32",)), "torch").stages
    limit = SizeRange(min=1, opt=64, max=most)
    stages = changed(stages, height=limit, width=limit, receptive_field=32)
    seen, encode = [], stages.encode

    def recorded(image, *more):
        seen.append(image.shape[2:])
        return encode(image, *more)

    monkeypatch.setattr(stages, "encode", recorded)
    view = View(stages, picture(*SIZE), TilePolicy(tile=0))
    assert view.render(2).shape == (1, 3, 170, 214)
    assert max(max(size) for size in seen) <= most
    # Graphs of 92 have room for a halo of 35 on both sides, what windows add to it, and a window;
    # where they are too short for that, tiles go without whole steps.
    starts = [span.crop_start % 8 for span in (*view._tiles.rows, *view._tiles.cols)]
    assert (max(starts) == 0) is aligned
