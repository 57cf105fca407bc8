"""Every network of the README against an independent statement of its published forward pass.

Small ones here, with the published windows; :mod:`test_imports` has them at their published sizes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forms import answers, onnx_runner
from published import PUBLISHED
from torch import Tensor

from scaleport.grid import Grid

LIMIT = 1e-5


def difference(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    assert want.std() > 0.01
    # Weights are random: what networks make of them can be far beyond the range of pixels.
    return (got - want).abs().max().item() / max(1.0, want.abs().max().item())


@pytest.mark.parametrize("name", list(PUBLISHED))
@torch.no_grad()
def test_torch(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    network, run = published.make(tmp_path)
    torch.manual_seed(1)
    for size in published.sizes:
        image = torch.rand(1, 3, *size)
        got = network(image, Grid.from_scale(*size, published.scale))
        assert difference(got, run(image)) <= LIMIT, size


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED))
@torch.no_grad()
def test_onnxruntime(name: str, tmp_path: Path) -> None:
    """The stages that answer the scale, in ONNX Runtime."""
    published = PUBLISHED[name]
    network, run = published.make(tmp_path)
    form = network.deploy()
    bound = f"render_x{published.scale}"
    only = ["prepare", "encode", "render" if form.bound == {} else bound]
    step = onnx_runner([stage for stage in form.stages() if stage.name in only])
    torch.manual_seed(1)
    for size in published.sizes:
        image = torch.rand(1, 3, *size)
        grid = Grid.from_scale(*size, published.scale)
        for got in answers(network, form, image, grid, step):
            assert difference(got, run(image)) <= LIMIT, size
