"""The measured receptive field against counting convolutions."""

from __future__ import annotations

import pytest
import torch

from scaleport.export.receptive import receptive_field
from scaleport.models import build_network

# One 3x3 convolution reaches 1 further: head, two per block, tail, and the upsampler's own.
# LIIF unfolds 3x3 features and then looks at the next neighbour.
EXTRA = {"spconv": 1, "igconv": 1, "liif": 2}
OPTIONS = {
    "spconv": {"scale": 2},
    "igconv": {"latent": 8, "hidden_layers": 1},
    "liif": {"hidden": [8]},
}


def network(upsampler, blocks, **options):
    torch.manual_seed(0)
    encoder = {"name": "edsr", "width": 2, "blocks": blocks}
    chosen = {"name": upsampler, **OPTIONS[upsampler], **options}
    return build_network({"encoder": encoder, "upsampler": chosen}).eval()


@pytest.mark.parametrize("upsampler", list(EXTRA))
@pytest.mark.parametrize("blocks", [1, 3, 16])
def test_edsr(upsampler, blocks):
    assert receptive_field(network(upsampler, blocks)) == 2 * blocks + 2 + EXTRA[upsampler]


def test_reach_beyond_the_first_picture():
    assert receptive_field(network("spconv", 30)) == 63


def test_native_scales_make_no_difference():
    assert receptive_field(network("igconv", 2, scales=[3])) == 7
    assert receptive_field(network("igconv", 2, scales=[2, 5])) == 7


def test_weights_make_no_difference_and_stay_as_they_are():
    net = network("liif", 2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert receptive_field(net) == 8
    assert all(not parameter.any() for parameter in net.parameters())
    assert next(net.parameters()).dtype == torch.float32
