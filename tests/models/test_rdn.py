from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make

from scaleport.errors import UsageError
from scaleport.models import ENCODERS

TINY = {"name": "rdn", "width": 8, "blocks": 3, "layers": 2, "growth": 6}
CONFIG = {
    "encoder": TINY,
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 0.5},
}


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        assert count(ENCODERS.create("rdn", {})) == 21_973_952
        large = {"width": 256, "blocks": 32, "residual_scale": 0.1}
        assert count(ENCODERS.create("edsr", large)) == 38_362_368


@torch.no_grad()
def test_blocks_against_a_literal_loop() -> None:
    network = make(CONFIG)
    rdn = network.encoder.double()
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    shallow = rdn.head(x)
    y, outputs = rdn.head2(shallow), []
    for block in rdn.body:
        parts = [y]
        for layer in block.layers:
            parts.append(torch.relu(layer(torch.cat(parts, dim=1))))
        y = y + block.fuse(torch.cat(parts, dim=1))
        outputs.append(y)
    want = shallow + rdn.tail(rdn.fuse(torch.cat(outputs, dim=1)))
    torch.testing.assert_close(rdn(x), want, rtol=0, atol=1e-14)


def test_deploy_form_is_the_training_form() -> None:
    check_forms({**CONFIG, "upsampler": {"name": "spconv", "scale": 4}})
    check_forms(CONFIG, scales=(2, 1.3), size=(1, 1))


@pytest.mark.networks
def test_graphs_are_the_training_form(tmp_path: Path) -> None:
    cases = (((15, 7), 1.7), ((1, 5), 2.0))
    check_onnx(CONFIG, cases=cases, only=["encode"])
    check_coreml(CONFIG, tmp_path, cases=cases, only=["encode"])


@torch.no_grad()
def test_a_tile_with_its_halo_is_exact() -> None:
    network = make(CONFIG).double()
    assert network.tiling.kind == "exact"
    image = torch.rand(1, 3, 40, 34, dtype=torch.float64)
    reach = 3 + TINY["blocks"] * TINY["layers"]
    tile = network.encoder(image[:, :, 5 : 5 + 2 * reach + 1, 7:30])
    whole = network.encoder(image)
    centre = tile[:, :, reach, reach : 23 - reach]
    wanted = whole[:, :, 5 + reach, 7 + reach : 30 - reach]
    torch.testing.assert_close(centre, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("option", ["width", "blocks", "layers", "growth"])
def test_wrong_options(option: str) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        ENCODERS.create("rdn", {option: 0})
