from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forms import SCALES, check_coreml, check_forms, check_onnx, count, make
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.export import coreml, onnx
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.upsamplers.msit import MSIT
from scaleport.models.upsamplers.msit_deploy import DeployedMixing, merged, wrapped
from scaleport.models.upsamplers.msit_parts import (
    Mixing,
    PositionBias,
    RefinedConv,
    shift_mask,
)

HEAD: dict[str, Any] = {
    "name": "msit",
    "width": 16,
    "heads": 2,
    "branches": 4,
    "query_branches": 2,
    "hidden": [16, 16],
}
TINY: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": HEAD,
    "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
}
EXPORTED = {**TINY, "upsampler": {**HEAD, "radius": 1, "branches": 2, "hidden": [16]}}


def upsampler(**options: Any) -> Any:
    torch.manual_seed(0)
    return UPSAMPLERS.create("msit", options, in_channels=options.pop("in_channels", 8))


def test_parameter_counts() -> None:
    unused = 2305  # mask values and a number that is never read, parameters of the published class
    assert count(upsampler(in_channels=64, rim=True)) + unused == 4_829_196
    assert count(upsampler(in_channels=64)) + unused == 6_905_868


@pytest.mark.parametrize("rim", [False, True])
def test_deploy_form_is_the_training_form(rim: bool) -> None:
    check_forms({**TINY, "upsampler": {**HEAD, "rim": rim}}, SCALES if rim else (2.7,))


@pytest.mark.parametrize("size", [(1, 1), (2, 1)])
def test_smallest_images(size: tuple[int, int]) -> None:
    check_forms(EXPORTED, (1, 2.7, 4), size)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_bound_to_an_integer_scale(scale: int, dtype: torch.dtype, limit: float) -> None:
    network = make(TINY).to(dtype)
    form = network.deploy(dtype)
    stage = form.stage(f"render_x{scale}")
    assert stage is not None
    image = torch.rand(2, 3, 5, 7, dtype=dtype)
    got = stage.module(*form.encode.module(image))
    want = network(image, Grid.from_scale(5, 7, scale))
    # The thirds of a grid are float32, those of a bound scale are not.
    assert (got - want).abs().max().item() <= max(limit, 1e-7 if scale == 3 else 0)


def published(net: Any, features: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """The decoder in the published float coordinates on [-1, 1], and its loops over keys."""
    shared, value = net.maps(features["feature"])
    n, _, h, w = shared.shape
    dtype = shared.dtype

    def centres(length: int) -> Tensor:
        return -1 + (2 * torch.arange(length, dtype=dtype) + 1) / length

    def sample(values: Tensor, at: Tensor, mode: str = "nearest", border: str = "zeros") -> Tensor:
        found = functional.grid_sample(
            values, at.flip(-1), mode=mode, padding_mode=border, align_corners=False
        )
        return found.permute(0, 2, 3, 1)

    lengths = torch.tensor([h, w], dtype=dtype)
    lattice = torch.meshgrid(centres(size[0]), centres(size[1]), indexing="ij")
    query = torch.stack(lattice, dim=-1)[None].expand(n, -1, -1, -1)
    places = torch.stack(torch.meshgrid(centres(h), centres(w), indexing="ij"))
    middle = sample(places[None].expand(n, -1, -1, -1), query + 1e-9)
    q = sample(shared, query, "bilinear").unflatten(-1, (net.heads, -1))
    beta = 2 ** torch.linspace(0, 10, net.position.linear.in_features // 4, dtype=dtype) - 1
    logits, values = [], []
    for dy in range(-net.radius, net.radius + 1):
        for dx in range(-net.radius, net.radius + 1):
            at = middle + 2 * torch.tensor([dy, dx], dtype=dtype) / lengths
            y, x = ((query - at) * lengths).unsqueeze(-1).unbind(dim=-2)
            code = [(beta * y).sin(), (beta * x).sin(), (beta * y).cos(), (beta * x).cos()]
            bias = net.position.linear(torch.cat(code, dim=-1))
            key = sample(shared, at).unflatten(-1, (net.heads, -1))
            logits.append((q * key).sum(dim=-1) / key.shape[-1] ** 0.5 + bias)
            values.append(sample(value, at).unflatten(-1, (net.heads, -1)))
    weights = torch.stack(logits).softmax(dim=0)
    parts = [(v * a[..., None]).flatten(-2) for v, a in zip(values, weights, strict=True)]
    cell = (2 * lengths / torch.tensor(size, dtype=dtype)).expand(n, *size, 2)
    out = net.mlp(torch.cat([*parts, cell], dim=-1))
    return (out + sample(features["skip"], query, "bilinear", "border")).permute(0, 3, 1, 2)


@pytest.mark.parametrize("scale", [1, 2, 3, 2.7, (1.5, 3.5)])
@torch.no_grad()
def test_against_the_published_formulas(
    scale: float | tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MSIT, "queries_per_chunk", 100)
    net = upsampler(**{k: v for k, v in HEAD.items() if k != "name"}).double().eval()
    nn.init.normal_(net.position.linear.weight)
    features = {
        "feature": torch.randn(2, 8, 8, 7, dtype=torch.float64),
        "skip": torch.randn(2, 3, 8, 7, dtype=torch.float64),
    }
    grid = Grid.from_scale(8, 7, scale)
    got = net.render(features, grid, {})
    expected = published(net, features, grid.output_size)
    # The grid's fractions are float32; angles multiply their error by up to 2000.
    assert (got - expected).abs().max().item() <= 2e-5
    assert got.std() > 0.01


def test_position_codes_in_float32_are_as_good_as_in_float64() -> None:
    bias = PositionBias(16, 8, 3)
    fraction = torch.rand(4000) - 0.5
    beta = 2 ** torch.linspace(0, 10, 16, dtype=torch.float64) - 1
    steps = torch.arange(-3, 4, dtype=torch.float64)
    exact = 2 * (fraction.double()[:, None, None] - steps[:, None]) * beta
    assert exact.abs().max() > 7000
    sine, cosine = bias.codes(fraction)
    assert sine.dtype == torch.float32
    assert (sine - exact.sin()).abs().max().item() <= 1e-6
    assert (cosine - exact.cos()).abs().max().item() <= 1e-6
    # What a plain float32 product would give.
    plain = 2 * (fraction[:, None, None] - steps.float()[:, None]) * beta.float()
    assert (plain.sin() - exact.sin()).abs().max().item() >= 1e-4


@torch.no_grad()
def test_shifts_wrap_around() -> None:
    x = torch.randn(1, 8, 3, 4)
    got = functional.conv2d(wrapped(x), shift_mask(8), groups=8)
    for c, (dy, dx) in enumerate([(0, 1), (0, -1), (1, 0), (-1, 0)] * 2):
        want = torch.roll(x[:, c], (-dy, -dx), (1, 2))
        if c >= 4:
            dy, dx = [(-1, 1), (1, -1), (1, 1), (-1, -1)][c - 4]
            want = want + torch.roll(x[:, c], (-dy, -dx), (1, 2))
        torch.testing.assert_close(got[:, c], want)


@torch.no_grad()
def test_refined_kernels() -> None:
    torch.manual_seed(0)
    conv = RefinedConv(2, 3, 5).double()
    plain = nn.Conv2d(2, 3, 5, padding=2).double()
    conv.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(conv(x), plain(x), rtol=0, atol=0)
    nn.init.normal_(conv.filter)
    nn.init.normal_(conv.factor)
    kernel = conv.kernel()
    for o in range(3):
        for i in range(2):
            w = plain.weight[o, i]
            around = functional.pad(w, (1, 1, 1, 1))
            taps, factor = conv.filter[o * 2 + i, 0], conv.factor[o * 2 + i]
            found = sum(
                taps[y, x] * around[y : y + 5, x : x + 5] for y in range(3) for x in range(3)
            )
            torch.testing.assert_close(kernel[o, i], w + found * factor[0, 0, 0] * w)
    torch.testing.assert_close(merged(conv)(x), conv(x))


@torch.no_grad()
def test_batch_norm_is_folded() -> None:
    torch.manual_seed(0)
    mixing = Mixing(8, 2).double().eval()
    for value in (mixing.norm.weight, mixing.norm.bias, mixing.norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(mixing.norm.running_var, 0.1, 3)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(DeployedMixing(mixing)(x), mixing(x))


def test_second_stage_starts_as_the_first() -> None:
    first = make(TINY)
    second = make({**TINY, "upsampler": {**HEAD, "rim": True}}, vary=False)
    found = second.load_state_dict(first.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert {name.rpartition(".")[2] for name in found.missing_keys} == {"filter", "factor"}
    image, grid = torch.rand(1, 3, 5, 6), Grid.from_scale(5, 6, 2)
    torch.testing.assert_close(second(image, grid), first(image, grid), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 20, "heads": 8}, "heads and branches divide"),
        ({"hidden": []}, "at least one hidden"),
        ({"radius": 0}, "at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        upsampler(**options)


def test_configuration_is_plain() -> None:
    assert json.loads(json.dumps(make(TINY).config)) == TINY | {"scale": {"min": 1.0, "max": 8.0}}


def test_onnx_and_openvino() -> None:
    check_onnx(EXPORTED, (torch.float32,))


@pytest.mark.networks
def test_onnx_in_float16() -> None:
    check_onnx(EXPORTED, (torch.float16,))


@pytest.mark.networks
def test_coreml(tmp_path: Path) -> None:
    check_coreml(EXPORTED, tmp_path)


@pytest.mark.networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_graphs_of_an_integer_scale(dtype: torch.dtype, tmp_path: Path) -> None:
    """Both exports compare what they wrote with the stage, at sizes of no trace."""
    stage = make(EXPORTED).deploy(dtype).stage("render_x3")
    assert stage is not None
    onnx.export_stage(stage)
    coreml.export_stage(stage, tmp_path / "x.mlpackage")
