from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scaleport.bundle.reader import open_bundle
from scaleport.errors import UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.models import ENCODERS, UPSAMPLERS, build_network, save_checkpoint
from scaleport.models.encoders.eqsr import EQSR, Adapter, OverlapBlock
from scaleport.models.octaves import Octaves
from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.registry import get_backend
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import BundleSource
from scaleport.runtimes.view import TilePolicy, View

TINY: dict[str, Any] = {
    "name": "eqsr",
    "width": 8,
    "depths": [2, 1],
    "heads": 2,
    "window": 4,
    "octaves": 6,
}
CONFIG: dict[str, Any] = {
    "encoder": TINY,
    "upsampler": {"name": "liif", "hidden": [16]},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404]},
}


def test_published_parameter_counts() -> None:
    encoder = ENCODERS.create("eqsr", {"octaves": 40, "scale_input": "size"})
    upsampler = UPSAMPLERS.create("kriging", {"octaves": 40}, in_channels=180)
    assert forms.count(encoder) == 12_407_400
    assert forms.count(encoder.adapters[0]) == 388_440
    assert forms.count(encoder.groups[0].blocks[0]) == 266_946
    assert forms.count(encoder.overlaps[0]) == 270_306
    assert forms.count(encoder) + forms.count(upsampler) == 13_619_510
    rates = [block.drop_path.probability for block in encoder.blocks()]
    assert rates[:5] == pytest.approx([0, 0.1 / 29, 0.2 / 29, 0.3 / 29, 0.5 / 29])
    assert rates[-1] == pytest.approx(2.8 / 29)


def exact_code(x: float, octaves: int) -> list[float]:
    t = Fraction(float(np.float32(x) * np.float32(0.1)))
    code = [x]
    for i in range(octaves):
        angle = math.pi * float((t * 2**i) % 2)
        code += [math.sin(angle), math.cos(angle)]
    return code


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 5e-7), (torch.float64, 1e-14)])
def test_octaves_are_exact_however_high(dtype: torch.dtype, limit: float) -> None:
    x = torch.tensor([0.0, 2 / 719, -2 / 719, 1.0, -1.0, 0.3, -0.7, 2.0, 1e-30])
    got = Octaves(40)(x, dtype)
    assert got.dtype == dtype
    want = torch.tensor([exact_code(v, 40) for v in x.tolist()], dtype=torch.float64)
    assert (got - want).abs().max().item() <= limit


def test_prepare_reads_height_or_scale() -> None:
    grid = Grid.from_size(10, 20, 31, 50)
    for scale_input, number in (("size", 2 / 31), ("scale", 2 / (48 * 3.1))):
        encoder = ENCODERS.create("eqsr", {**TINY_OPTIONS, "scale_input": scale_input})
        code = encoder.prepare(grid)["modulation"]
        assert tuple(code.shape) == (2, 13)
        torch.testing.assert_close(code[1], torch.tensor(exact_code(number, 6)).float())
        (port,) = encoder.deploy_prepare().inputs
        assert port.name == {"size": "cell", "scale": "scale"}[scale_input]


TINY_OPTIONS = {key: value for key, value in TINY.items() if key != "name"}


def published_adapter(adapter: Adapter, x: Tensor, code: Tensor) -> Tensor:
    """On float[N, C, H, W], with a kernel per sample and a grouped convolution."""
    n, c, h, w = x.shape

    def point(layer: Any, value: Tensor) -> Tensor:
        return functional.conv2d(value, layer.weight[:, :, None, None], layer.bias)

    def norm(layer: Any, value: Tensor) -> Tensor:
        mean = value.mean(dim=1, keepdim=True)
        variance = value.var(dim=1, keepdim=True, unbiased=False)
        value = (value - mean) / (variance + 1e-5).sqrt()
        return value * layer.weight[:, None, None] + layer.bias[:, None, None]

    t0 = point(adapter.mix, x)
    conv: Any = adapter.conv
    style = conv.style(code.expand(n, -1))
    kernel = conv.weight[None] * (style + 1)[:, None, :, None, None]
    kernel = kernel / (kernel**2).sum(dim=(2, 3, 4), keepdim=True).add(1e-8).sqrt()
    y = functional.gelu(norm(adapter.norm1, t0)).reshape(1, n * c, h, w)
    y = functional.conv2d(y, kernel.reshape(n * c, c, 3, 3), padding=1, groups=n)
    t1 = t0 + y.reshape(n, c, h, w)
    y = functional.gelu(norm(adapter.norm2, t1))
    gate = functional.silu(y.mean(dim=(2, 3)) @ adapter.squeeze.weight.t())
    gate = (gate @ adapter.excite.weight.t()).sigmoid()
    return t1 + point(adapter.project, y * gate[:, :, None, None])


@torch.no_grad()
def test_adapter_against_the_published_formulas() -> None:
    network = forms.make(CONFIG).double()
    encoder = network.encoder
    assert isinstance(encoder, EQSR)
    adapter = encoder.adapters[1]
    assert isinstance(adapter, Adapter)
    code = encoder.prepare(Grid.from_scale(5, 7, 2.5))["modulation"][1:]
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    got = adapter(x.permute(0, 2, 3, 1), code).permute(0, 3, 1, 2)
    want = published_adapter(adapter, x, code)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def published_overlap(block: OverlapBlock, x: Tensor) -> Tensor:
    """Keys and values by ``unfold``, a table that is read from its end for negative places."""
    n, h, w, c = x.shape
    window, wide = block.window, block.window + block.window // 2
    heads = block.heads
    q, k, v = block.qkv(block.norm1(x)).permute(0, 3, 1, 2).chunk(3, dim=1)

    def tokens(values: Tensor, size: int, pad: int) -> Tensor:
        found = functional.unfold(values, size, stride=window, padding=pad)
        found = found.reshape(n, c, size * size, -1).permute(0, 3, 2, 1)
        return found.reshape(-1, size * size, heads, c // heads).transpose(1, 2)

    query, key, value = tokens(q, window, 0), tokens(k, wide, (wide - window) // 2), None
    value = tokens(v, wide, (wide - window) // 2)
    side = window + wide - 1
    bias = torch.empty(heads, window**2, wide**2, dtype=x.dtype)
    for i in range(window**2):
        for j in range(wide**2):
            y = j // wide - i // window + window - wide + 1
            z = j % wide - i % window + window - wide + 1
            bias[:, i, j] = block.table[y * side + z]
    logits = query * (c // heads) ** -0.5 @ key.transpose(2, 3) + bias
    y = block.proj((logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    y = y.reshape(n, h // window, w // window, window, window, c)
    x = x + y.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return x + block.mlp(block.norm2(x))


@torch.no_grad()
def test_overlapping_windows_against_the_published_formulas() -> None:
    torch.manual_seed(0)
    block = OverlapBlock(8, 2, 4, 12).double()
    torch.nn.init.normal_(block.table)
    x = torch.randn(2, 8, 12, 8, dtype=torch.float64)
    want = published_overlap(block, x)
    torch.testing.assert_close(block(x, (2, 2, 3)), want, rtol=0, atol=1e-12)
    block.freeze()
    torch.testing.assert_close(block(x, (2, 2, 3)), want, rtol=0, atol=1e-12)


@torch.no_grad()
def test_features_are_those_of_the_reflected_image_and_depend_on_the_scale() -> None:
    network = forms.make(CONFIG).double()
    image = torch.rand(1, 3, 7, 10, dtype=torch.float64)
    constants = network.prepare(Grid.from_scale(7, 10, 3))
    padded = functional.pad(image - network.mean, (0, 2, 0, 1), mode="reflect")
    whole = network.encoder(padded, constants["modulation"])[:, :, :7, :10]
    got = network.encode(image, constants)["feature"]
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-12)
    other = network.encode(image, network.prepare(Grid.from_scale(7, 10, 2)))["feature"]
    assert (other - whole).abs().max() > 1e-4


@pytest.mark.parametrize("scale_input", ["scale", "size"])
def test_deploy_form_is_the_training_form(scale_input: str) -> None:
    config = {**CONFIG, "encoder": {**TINY, "scale_input": scale_input}}
    forms.check_forms(config)


@pytest.mark.networks
def test_onnx_and_openvino() -> None:
    forms.check_onnx({**CONFIG, "encoder": {**TINY, "depths": [2], "scale_input": "size"}})


@pytest.mark.networks
def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml({**CONFIG, "encoder": {**TINY, "depths": [2]}}, tmp_path)


@pytest.mark.networks
@torch.no_grad()
@pytest.mark.parametrize(
    ("scale_input", "upsampler"),
    [("size", {"name": "liif", "hidden": [16]}), ("scale", {"name": "kriging", "width": 8})],
)
def test_bundle_prepares_once_per_size_and_keeps_features_by_size(
    tmp_path: Path, scale_input: str, upsampler: dict[str, Any]
) -> None:
    if upsampler["name"] == "kriging":
        upsampler = {**upsampler, "groups": 2, "octaves": 4}
    encoder = {**TINY, "depths": [1, 1], "scale_input": scale_input}
    network = forms.make({**CONFIG, "encoder": encoder, "upsampler": upsampler})
    save_checkpoint(network, tmp_path / "net.safetensors")
    options = ExportOptions(formats=("onnx",), precisions=("fp32",))
    export_bundle(tmp_path / "net.safetensors", tmp_path / "net.bundle", options)
    backend = get_backend("onnxruntime")
    bundle = open_bundle(tmp_path / "net.bundle")
    stages = Stages(BundleSource(bundle), backend, backend.availability(), "fp32", SessionOptions())
    ran: list[str] = []
    real = stages.run

    def counted(stage: str, feeds: Any) -> Any:
        ran.append(stage)
        return real(stage, feeds)

    stages.run = counted  # type: ignore[method-assign]
    image = np.random.default_rng(0).random((1, 3, 9, 14), dtype=np.float32)

    def want(scale: float) -> np.ndarray[Any, Any]:
        out: Tensor = network(torch.from_numpy(image), Grid.from_scale(9, 14, scale))
        return out.numpy()

    view = View(stages, image, TilePolicy(tile=0))
    for scale in (2, 2.7, 2):
        assert np.abs(view.render(scale) - want(scale)).max() <= 1e-4
    part = view.render(2.7, region=(3, 5, 20, 30))
    assert np.abs(part - want(2.7)[:, :, 3:20, 5:30]).max() <= 1e-4
    assert (ran.count("prepare"), ran.count("encode"), ran.count("render")) == (2, 2, 4)
    # Tiles see the size of the whole output.
    ran.clear()
    tiled = View(stages, image, TilePolicy(tile=5)).render(2.7)
    assert np.abs(tiled - want(2.7)).max() <= (1e-4 if upsampler["name"] == "kriging" else 0.1)
    assert "prepare" not in ran
    whole = {"image": image, "scale": np.array([2.7, 2.7], np.float32)}
    assert np.abs(stages.run("whole", whole)["upscaled"] - want(2.7)).max() <= 1e-4
    sized = {"image": image, "size": np.array([24, 38], np.int64)}
    assert np.abs(stages.run("whole_size", sized)["upscaled"] - want(2.7)).max() <= 1e-4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 10, "heads": 2}, "multiples of 4"),
        ({"window": 6}, "multiples of 4"),
        ({"heads": 3}, "multiple of heads"),
        ({"scale_input": "cell"}, "'scale' or 'size', not 'cell'"),
        ({"octaves": 65}, "octaves must be 0 to 64"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_network({**CONFIG, "encoder": {**TINY, **options}})


def test_needs_a_query_upsampler_and_prepare() -> None:
    with pytest.raises(UsageError, match=r"'eqsr' .* needs a query upsampler, not 'spconv'"):
        build_network({**CONFIG, "upsampler": {"name": "spconv", "scale": 2}})
    network = build_network(CONFIG)
    with pytest.raises(UsageError, match="what prepare made"):
        network.encode(torch.rand(1, 3, 4, 4))
