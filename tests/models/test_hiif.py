from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make
from torch import Tensor
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.upsamplers.hiif_parts import axis_lines

TINY: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {"name": "hiif", "width": 16, "levels": 4, "heads": 4, "attentions": 2},
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
}
EXPORTED = {
    **TINY,
    "upsampler": {"name": "hiif", "width": 8, "levels": 2, "heads": 2, "attentions": 1},
}


def upsampler(name: str, in_channels: int, **options: Any) -> Any:
    torch.manual_seed(0)
    return UPSAMPLERS.create(name, options, in_channels=in_channels)


def test_parameter_counts() -> None:
    assert count(upsampler("hiif", 64)) == 1_735_071
    assert count(upsampler("hiif-light", 64)) == 100_919


def test_deploy_form_is_the_training_form() -> None:
    check_forms(TINY)
    check_forms({**TINY, "upsampler": {"name": "hiif", "width": 8, "heads": 2, "attentions": 0}})


@pytest.mark.parametrize("size", [(1, 1), (2, 1)])
def test_smallest_images(size: tuple[int, int]) -> None:
    check_forms(TINY, (1, 2.7, 4), size)


def published(net: Any, features: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """HIIF in the published float coordinates on [-1, 1], for all queries at once."""
    feature = net.project(features["feature"])
    n, _, height, width = feature.shape
    dtype = feature.dtype

    def centres(count: int) -> Tensor:
        return -1 + (2 * torch.arange(count, dtype=dtype) + 1) / count

    def nearest(values: Tensor, at: Tensor) -> Tensor:
        return functional.grid_sample(values, at.flip(-1), mode="nearest", align_corners=False)

    lattice = torch.meshgrid(centres(size[0]), centres(size[1]), indexing="ij")
    query = torch.stack(lattice, dim=-1)[None].expand(n, -1, -1, -1)
    places = torch.stack(torch.meshgrid(centres(height), centres(width), indexing="ij"))
    places = places[None].expand(n, -1, -1, -1)
    lengths = torch.tensor([height, width], dtype=dtype)
    found, areas, local = [], [], None
    for step_y in (-1, 1):
        for step_x in (-1, 1):
            moved = query + torch.tensor([step_y, step_x], dtype=dtype) / lengths + 1e-9
            moved = moved.clamp(-1 + 1e-9, 1 - 1e-9)
            relative = (query - nearest(places, moved).permute(0, 2, 3, 1)) * lengths / 2
            found.append(nearest(feature, moved))
            areas.append(relative.prod(dim=-1).abs() + 1e-12)
            if local is None:
                local = torch.where(relative > -1e-9, relative, 1 / lengths - relative)
    assert local is not None
    total = torch.stack(areas).sum(dim=0)
    parts = [f * (a / total)[:, None] for f, a in zip(found, areas[::-1], strict=True)]
    cell = 2 * lengths / torch.tensor(size, dtype=dtype)
    parts.append(cell[None, :, None, None].expand(n, 2, *size))
    x = torch.cat(parts, dim=1).flatten(2).transpose(1, 2)
    local = local.reshape(n, -1, 2) + net.digit_shift
    for j, level in enumerate(net.levels):
        digits = torch.floor(local.clamp(0, 1) * 2 ** (j + 1)) % 2
        x = torch.cat([x, digits], dim=-1)
        x = level.fc2(functional.gelu(level.fc1(level.norm(x))))
        for unit in net.attention if j == 0 else ():
            heads = unit.qkv(x).reshape(n, x.shape[1], unit.heads, -1).permute(0, 2, 1, 3)
            q, k, v = heads.chunk(3, dim=-1)
            average = unit.norm_k(k).transpose(2, 3) @ unit.norm_v(v) / x.shape[1]
            mixed = (q @ average).permute(0, 2, 1, 3).reshape(x.shape) + x
            x = unit.fc2(functional.gelu(unit.fc1(mixed))) + x
    skip = functional.grid_sample(
        features["skip"], query.flip(-1), padding_mode="border", align_corners=False
    )
    return x.transpose(1, 2).reshape(n, 3, *size) + skip


@pytest.mark.parametrize("scale", [2, 4, 2.7, (2, 3.5), 8])
@torch.no_grad()
def test_against_the_published_formulas(
    scale: float | tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaleport.models.upsamplers.hiif._QUERIES_PER_CHUNK", 60)
    net = upsampler("hiif", 5, width=8, heads=2).double()
    size = (11, 9)
    features = {
        "feature": torch.randn(2, 5, *size, dtype=torch.float64),
        "skip": torch.randn(2, 3, *size, dtype=torch.float64),
    }
    grid = Grid.from_scale(*size, scale)
    got = net.render(features, grid, {})
    expected = published(net, features, grid.output_size)
    # The grid's fractions are float32.
    assert (got - expected).abs().max().item() <= 2e-6
    assert got.std() > 0.01


def test_digits_of_a_coordinate() -> None:
    def digits(index: int, offset: float, length: int = 64) -> list[list[float]]:
        position = torch.tensor([index], dtype=torch.int32), torch.tensor([offset])
        return [d.tolist() for d in axis_lines(*position, length, 6, 1e-4).digits]

    assert digits(3, 0.25) == [[0], [1], [0], [0], [0], [0]]
    assert digits(3, 0.75) == [[1], [1], [0], [0], [0], [0]]
    assert digits(3, 0.0) == [[0]] * 6
    assert digits(3, 1 - 2.0**-24) == [[1]] * 6
    assert digits(3, 0.39) == [[0], [1], [1], [0], [0], [0]]
    # Outside the first centre by 0.3: 1 / 8 + 0.3 = 0.425.
    assert digits(-1, 0.7, 8) == [[0], [1], [1], [0], [1], [1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 10, "heads": 4}, "divisible by heads"),
        ({"levels": 1}, "2 to 16 levels"),
        ({"digit_shift": 0.5}, "digit_shift"),
        ({"attentions": -1}, "attentions"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        upsampler("hiif", 8, **options)


def test_pixels_depend_on_the_call() -> None:
    net = make(TINY)
    assert net.tiling.kind == "not-allowed"
    assert "attention" in net.tiling.reason


def test_onnx_and_openvino() -> None:
    check_onnx(EXPORTED, (torch.float32,))


@pytest.mark.networks
def test_onnx_in_float16() -> None:
    check_onnx(EXPORTED, (torch.float16,))


@pytest.mark.networks
def test_coreml(tmp_path: Path) -> None:
    check_coreml(EXPORTED, tmp_path)
