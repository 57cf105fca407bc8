from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS, build_network

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {"name": "metasr", "hidden": 16},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def test_published_parameter_counts() -> None:
    assert forms.count(UPSAMPLERS.create("metasr", {}, in_channels=64)) == 445_120
    network = build_network({"encoder": {"name": "edsr"}, "upsampler": {"name": "metasr"}})
    # The published 1 665 560 includes 24 frozen weights that are never used.
    assert network.parameter_count() == 1_665_536


def published(mlp: nn.Module, feature: Tensor, out_height: int, out_width: int) -> Tensor:
    """The lookup of top left corners in float coordinates on [-1, 1]."""
    n, _, height, width = feature.shape
    dtype = feature.dtype
    columns = functional.unfold(feature, 3, padding=1).reshape(n, -1, height, width)

    def centres(count: int) -> Tensor:
        return -1 + (2 * torch.arange(count, dtype=dtype) + 1) / count

    query = torch.stack(
        torch.meshgrid(
            centres(out_height) - 1 / out_height, centres(out_width) - 1 / out_width, indexing="ij"
        ),
        dim=-1,
    ).reshape(-1, 2)
    size = torch.tensor([height, width], dtype=dtype)
    moved = (query + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
    owner = ((moved + 1) / 2 * size).floor()
    relative = (query + 1) / 2 * size - owner
    inverse = torch.full_like(relative[:, :1], height / out_height)
    filters = mlp(torch.cat([relative, inverse], dim=-1)).reshape(-1, columns.shape[1], 3)
    picked = columns[:, :, owner[:, 0].long(), owner[:, 1].long()]
    out = torch.einsum("nkq,qkc->ncq", picked, filters)
    return out.reshape(n, 3, out_height, out_width)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 7, 2.7, (2, 3.5), 1.3, 0.5])
@torch.no_grad()
def test_against_the_published_formulas(scale: Any) -> None:
    torch.manual_seed(0)
    upsampler = UPSAMPLERS.create("metasr", {"hidden": 16}, in_channels=4).double()
    feature = torch.randn(2, 4, 13, 9, dtype=torch.float64)
    grid = Grid.from_scale(13, 9, scale)
    got = upsampler.render({"feature": feature}, grid, {})
    want = published(upsampler.mlp, feature, *grid.output_size)
    # Offsets of the grid are float32.
    assert (got - want).abs().max().item() <= 2e-6
    assert got.std() > 0.01


def test_deploy_form_is_the_training_form() -> None:
    forms.check_forms(CONFIG, scales=(*forms.SCALES, 1, 1.3, 0.5))
    forms.check_forms(CONFIG, size=(1, 2))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
@torch.no_grad()
def test_an_integer_scale_is_one_convolution(scale: int) -> None:
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 2e-7)):
        network = forms.make(CONFIG).to(dtype)
        form = network.deploy(dtype)
        stage = form.stage(f"render_x{scale}")
        assert stage is not None
        image = torch.rand(2, 3, 7, 5, dtype=dtype)
        want = network(image, Grid.from_scale(7, 5, scale))
        got = stage.module(form.encode.module(image))
        assert (got - want).abs().max().item() <= limit
    assert form.stage("render_y2") is None


def test_onnx() -> None:
    forms.check_onnx(CONFIG)


def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path)


def test_a_hidden_layer_is_needed() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        UPSAMPLERS.create("metasr", {"hidden": 0}, in_channels=4)
