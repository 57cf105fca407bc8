from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models import ENCODERS

TINY = {"name": "rcan", "width": 8, "groups": 2, "blocks": 1, "reduction": 4}
CONFIG = {
    "encoder": TINY,
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
}


SHIFTED = {**CONFIG, "encoder": {**TINY, "shift": True}}


def test_published_parameter_count() -> None:
    # 16 217 083 with IGConv+, without its upsampler and its 24 weights around the mean.
    with torch.device("meta"):
        assert count(ENCODERS.create("rcan", {})) == 15_295_200


@torch.no_grad()
def test_encoder_against_the_formulas() -> None:
    rcan = make(CONFIG).encoder.double()
    x = torch.rand(2, 3, 7, 5, dtype=torch.float64)
    shallow = y = rcan.head(x)
    for group in rcan.groups:
        skip = y
        for block in group.blocks:
            made = block.conv2(functional.relu(block.conv1(y)))
            pooled = made.flatten(2).mean(dim=2)
            down, up = block.attention.down, block.attention.up
            hidden = functional.relu(pooled @ down.weight[:, :, 0, 0].t() + down.bias)
            gate = torch.sigmoid(hidden @ up.weight[:, :, 0, 0].t() + up.bias)
            y = y + made * gate[:, :, None, None]
        y = skip + group.tail(y)
    torch.testing.assert_close(rcan(x), shallow + rcan.tail(y), rtol=0, atol=1e-13)


def test_deploy_form_is_the_training_form() -> None:
    check_forms({**SHIFTED, "upsampler": {"name": "spconv", "scale": 4}})
    check_forms(CONFIG, scales=(2, 1.3), size=(1, 1))


@pytest.mark.networks
def test_graphs_are_the_training_form(tmp_path: Path) -> None:
    cases = (((15, 7), 1.7), ((1, 5), 2.0))
    check_onnx(SHIFTED, cases=cases, only=["encode"])
    check_coreml(SHIFTED, tmp_path, cases=cases, only=["encode"])


@pytest.mark.parametrize("options", [{"width": 8}, {"groups": 0}, {"blocks": 0}, {"reduction": 0}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        ENCODERS.create("rcan", options)
