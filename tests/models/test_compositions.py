"""Every named network can be built, and its small version runs."""

from __future__ import annotations

import pytest
import torch

from scaleport.grid import Grid
from scaleport.models import ENCODERS, UPSAMPLERS, build_network
from scaleport.models.compositions import COMPOSITIONS


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_small_version_upscales(name):
    torch.manual_seed(0)
    network = build_network(COMPOSITIONS[name].small).eval()
    scale = network.upsampler.native_scales[0] if network.upsampler.native_scales else 2.7
    grid = Grid.from_scale(5, 9, scale)
    with torch.inference_mode():
        out = network(torch.rand(2, 3, 5, 9), grid)
    assert out.shape == (2, 3, *grid.output_size)
    assert torch.isfinite(out).all()


def test_every_part_is_in_a_named_network():
    """A new encoder or upsampler that no composition names would be in no table and no test."""
    used = {COMPOSITIONS[n].config["encoder"]["name"] for n in COMPOSITIONS}
    assert set(ENCODERS) - used <= {"spandrel"}
    used = {COMPOSITIONS[n].config["upsampler"]["name"] for n in COMPOSITIONS}
    assert set(UPSAMPLERS) - used <= {"shuffle"}


def test_published_sizes():
    counts = {
        "edsr-baseline-igconv-plus": 2_142_275,
        "swinir-light-x2": 910_152,
        "hit-sir-x4": 791_540,
        "edsr-baseline-ipe-liif": 2_049_603,
        "eqsr": 13_619_510,
        "c2d-swinir-light-x3": 750_271,
    }
    for name, count in counts.items():
        network = build_network(COMPOSITIONS[name].config)
        assert network.parameter_count() == count, name
