from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make
from torch import Tensor
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models import ENCODERS
from scaleport.models.encoders import smfanet

TINY = {"name": "smfanet-plus", "width": 8, "blocks": 1}
CONFIG = {"encoder": TINY, "upsampler": {"name": "spconv", "scale": 2}}


def test_published_parameter_count() -> None:
    # 480 300 with SPConv of scale 2, which has 5 196.
    with torch.device("meta"):
        assert count(ENCODERS.create("smfanet-plus", {})) == 475_104


def published(encoder: Any, x: Tensor) -> Tensor:
    """The whole encoder in PyTorch's own pooling, stretching, variance and normalisation."""
    height, width = x.shape[2:]
    y = shallow = encoder.head(x)
    for block in encoder.blocks:
        part = block.modulation
        near, far = part.split(functional.normalize(y)).chunk(2, dim=1)
        pooled = functional.adaptive_max_pool2d(far, (height // 8, width // 8))
        spread = torch.var(far, dim=(2, 3), keepdim=True)
        gate = part.gate(part.coarse(pooled) * part.alpha + spread * part.beta)
        gate = functional.interpolate(functional.gelu(gate), (height, width), mode="nearest")
        near = part.local3(functional.gelu(part.local2(part.local1(near))))
        y = y + part.fuse(far * gate + near)
        hidden = functional.gelu(block.ffn.up(functional.normalize(y)))
        near, rest = hidden.split([hidden.shape[1] // 4, hidden.shape[1] * 3 // 4], dim=1)
        y = y + block.ffn.down(torch.cat([functional.gelu(block.ffn.near(near)), rest], dim=1))
    return shallow + y


@pytest.mark.parametrize("size", [(8, 8), (15, 23), (31, 16), (41, 9)])
@torch.no_grad()
def test_encoder_against_the_published_operations(size: tuple[int, int]) -> None:
    encoder = make(CONFIG).encoder.double()
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(encoder(x), published(encoder, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [*range(8, 66), 719, 1080, 3999])
def test_cells_are_those_of_the_published_pooling(length: int) -> None:
    ramp = torch.arange(float(length))[None, None]
    cells = length // 8
    like = torch.zeros(1)
    rows = smfanet.cell_rows(length, like).reshape(cells, -1)
    assert int(rows.min()) == 0
    upper = functional.adaptive_max_pool1d(ramp, cells)[0, 0]
    lower = -functional.adaptive_max_pool1d(-ramp, cells)[0, 0]
    assert rows.amax(dim=1).tolist() == upper.tolist()
    assert rows.amin(dim=1).tolist() == lower.tolist()
    stretched = functional.interpolate(torch.arange(float(cells))[None, None], length)[0, 0]
    assert smfanet.row_cells(length, like).tolist() == stretched.tolist()


@torch.no_grad()
def test_smallest_images() -> None:
    # Shorter than a cell, where the published pooling has no output; one pixel has no variance.
    encoder = make(CONFIG).encoder.double()
    for size in ((1, 1), (3, 20), (7, 7)):
        assert torch.isfinite(encoder(torch.rand(1, 3, *size, dtype=torch.float64))).all()
    x = torch.rand(2, 4, 5, 7, dtype=torch.float64)
    pooled = smfanet.pool_cells(x)
    torch.testing.assert_close(pooled, x.amax(dim=(2, 3), keepdim=True), rtol=0, atol=0)


def test_deploy_form_is_the_training_form() -> None:
    check_forms({**CONFIG, "upsampler": {"name": "spconv", "scale": 4}})
    check_forms(CONFIG, scales=(2, 1.3), size=(1, 1))
    check_forms(CONFIG, scales=(2,), size=(27, 35))


@pytest.mark.networks
def test_graphs_are_the_training_form(tmp_path: Path) -> None:
    cases = (((15, 7), 1.7), ((1, 5), 2.0), ((27, 35), 2.0))
    check_onnx(CONFIG, cases=cases, only=["encode"])
    check_coreml(CONFIG, tmp_path, cases=cases, only=["encode"])


@pytest.mark.parametrize("options", [{"width": 0}, {"blocks": 0}, {"width": 4, "ratio": 0.5}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        ENCODERS.create("smfanet-plus", options)
