from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.upsamplers.kriging import (
    KrigingBlock,
    NeuralKriging,
    distance,
    nearest_index,
)

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {"name": "kriging", "width": 16, "groups": 4, "octaves": 6},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def test_published_parameter_counts() -> None:
    for octaves, expected in ((40, 1_212_110), (12, 1_212_110 - 28_672)):
        upsampler = UPSAMPLERS.create("kriging", {"octaves": octaves}, in_channels=180)
        assert forms.count(upsampler) == expected


def upsampler(**options: Any) -> NeuralKriging:
    torch.manual_seed(0)
    made = UPSAMPLERS.create(
        "kriging", {"width": 16, "groups": 4, "octaves": 3, **options}, in_channels=5
    )
    assert isinstance(made, NeuralKriging)
    return made


def published(model: NeuralKriging, feature: Tensor, out_height: int, out_width: int) -> Tensor:
    """The network in float coordinates on [-1, 1], with gathers and unfolds of whole maps."""
    n, _, height, width = feature.shape
    dtype = feature.dtype

    def centres(rows: int, cols: int) -> Tensor:
        """(x, y) of the centres of all cells, [1, rows, cols, 2]."""
        y = -1 + (2 * torch.arange(rows, dtype=dtype) + 1) / rows
        x = -1 + (2 * torch.arange(cols, dtype=dtype) + 1) / cols
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]

    query = centres(out_height, out_width)

    def nearest(values: Tensor) -> Tensor:
        at = query.expand(len(values), -1, -1, -1)
        return functional.grid_sample(values, at, mode="nearest", align_corners=False)

    places = nearest(centres(height, width).permute(0, 3, 1, 2))
    size = torch.tensor([width, height], dtype=dtype)
    relative = (query - places.permute(0, 2, 3, 1)) * size
    code = [relative]
    for i in range((model.octaves.width - 1) // 2):
        angle = 2**i * torch.pi * relative / 10
        code += [angle.sin(), angle.cos()]
    codes = torch.cat(code, dim=-1).permute(0, 3, 1, 2).expand(n, -1, -1, -1)
    z = functional.relu(model.head(torch.cat([nearest(feature), codes], dim=1)))

    around = functional.unfold(places, 3, padding=1).reshape(2, 9, out_height, out_width)
    apart = (around - query[0].permute(2, 0, 1)[:, None]) * size.reshape(2, 1, 1, 1)
    prior = torch.exp(-(apart**2).sum(dim=0) / (2 * model.length**2))

    def block(part: KrigingBlock, x: Tensor) -> Tensor:
        involution: Any = part.involution
        groups = involution.groups
        y = part.before(part.norm1(x))
        kernel = involution.expand(functional.relu(involution.reduce(y)))
        patches = functional.pad(y, (1, 1, 1, 1))
        out = torch.zeros_like(y)
        for channel in range(y.shape[1]):
            group = channel // (y.shape[1] // groups)
            for tap in range(9):
                ky, kx = divmod(tap, 3)
                moved = patches[:, channel, ky : ky + out_height, kx : kx + out_width]
                out[:, channel] += kernel[:, group * 9 + tap] * prior[tap] * moved
        x = x + part.after(out)
        y = part.fc2(functional.gelu(part.fc1(part.norm2(x))))
        mean = functional.pad(y.mean(dim=(2, 3)), (2, 2))
        taps = part.channels.weight.flatten()
        factor = sum(taps[k] * mean[:, k : k + y.shape[1]] for k in range(5))
        assert isinstance(factor, Tensor)
        return x + y * factor[:, :, None, None]

    a = functional.relu(block(model.block1, z))
    b = functional.relu(block(model.block2, a))
    return model.last(functional.relu(b + z))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 2.7, (2, 3.5), 0.7])
@torch.no_grad()
def test_against_the_published_formulas(scale: Any) -> None:
    model = upsampler().double()
    feature = torch.randn(2, 5, 13, 9, dtype=torch.float64)
    grid = Grid.from_scale(13, 9, scale)
    got = model.render({"feature": feature}, grid, {})
    want = published(model, feature, *grid.output_size)
    # The fractions of a grid are float32.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert got.std() > 0.01


@pytest.mark.parametrize(("n", "N"), [(12, 18), (13, 31), (7, 7), (10, 4), (1, 8), (5, 1), (9, 6)])
def test_nearest_pixel_and_distance_of_every_output_pixel(n: int, N: int) -> None:
    axis = Grid.from_size(n, 1, N, 1).rows
    index, offset = torch.from_numpy(axis.index), torch.from_numpy(axis.offset)
    got = nearest_index(index, offset, n)
    assert got.dtype == torch.int32
    exact = [((2 * a + 1) * n - N, 2 * N) for a in range(N)]
    want = []
    for top, bottom in exact:
        floor, rest = divmod(top, bottom)
        tie = 2 * rest == bottom
        want.append(min(max(floor + (floor % 2 if tie else int(2 * rest > bottom)), 0), n - 1))
    assert got.tolist() == want
    found = distance(index, offset, got)
    places = [2 * (top / bottom - near) for (top, bottom), near in zip(exact, want, strict=True)]
    np.testing.assert_allclose(found.numpy(), places, atol=2e-7)


@torch.no_grad()
def test_a_region_is_cut_out_of_the_whole() -> None:
    model = upsampler()
    feature = {"feature": torch.randn(1, 5, 6, 7)}
    grid = Grid.from_scale(6, 7, 2.5)
    whole = model.render(feature, grid, {})
    part = model.render(feature, grid.region(2, 3, 9, 11), {})
    assert torch.equal(part, whole[:, :, 2:9, 3:11])
    with pytest.raises(UsageError, match="as a whole"):
        model.render(feature, grid.region(2, 3, 9, 11, origin=(1, 0)), {})
    assert model.tiling.kind == "not-allowed" and model.tiling.reason


def test_deploy_form_is_the_training_form() -> None:
    forms.check_forms(CONFIG)


def test_octaves_as_published_do_not_part_the_forms() -> None:
    config = {**CONFIG, "upsampler": {**CONFIG["upsampler"], "octaves": 40}}
    forms.check_forms(config, scales=(2.7,))


@pytest.mark.networks
def test_onnx_and_openvino() -> None:
    config = {**CONFIG, "upsampler": {**CONFIG["upsampler"], "octaves": 40}}
    forms.check_onnx(config)


@pytest.mark.networks
def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path)


@pytest.mark.parametrize("options", [{"width": 18}, {"groups": 3}, {"groups": 0}, {"octaves": -1}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        upsampler(**options)
