from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid, subpixel_centres
from scaleport.models import ENCODERS, UPSAMPLERS, Network, build_network
from scaleport.models.base import Upsampler
from scaleport.models.layers import convolutions_channels_last
from scaleport.models.positions import GridTensors
from scaleport.models.resample import resample

SCALES: list[float | tuple[float, float]] = [2, 3, 4, 2.7, (2, 3.5)]
SMALL = {"name": "edsr", "width": 16, "blocks": 2}
NORM = {"mean": [0.4488, 0.4371, 0.404], "std": 0.5}


def network(
    upsampler: dict[str, Any], encoder: dict[str, Any] | None = None, **settings: Any
) -> Network:
    torch.manual_seed(0)
    config = {"encoder": encoder or {"name": "edsr"}, "upsampler": upsampler, **settings}
    return build_network(config).eval()


def upsampler(name: str, in_channels: int, **options: Any) -> Any:
    torch.manual_seed(0)
    return UPSAMPLERS.create(name, options, in_channels=in_channels)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts() -> None:
    assert count(ENCODERS.create("edsr", {})) == 1_220_416
    for scale, expected in ((2, 6_924), (3, 15_579), (4, 27_696)):
        assert count(upsampler("spconv", 64, scale=scale)) == expected
    assert count(upsampler("liif", 64)) == 346_883
    assert network({"name": "igconv"}).parameter_count() == 1_779_523
    # The published count of 1 567 323 includes 24 frozen weights that are never used.
    assert network({"name": "liif"}).parameter_count() == 1_567_299


@pytest.mark.parametrize("channels", [48, 60, 64, 180, 210, 256])
def test_igconv_parameter_count(channels: int) -> None:
    assert count(upsampler("igconv", channels)) == 4608 * channels + 264_195


def deployed(net: Network, image: Tensor, grid: Grid, dtype: torch.dtype) -> list[Tensor]:
    """Every way in which the deploy form answers a grid."""
    form = net.deploy(dtype)
    feature = form.encode.module(image)
    if net.upsampler.family == "query":
        assert form.render is not None
        return [form.render.module(feature, *GridTensors.of(grid))]
    scale = net.native_scale(grid)
    assert scale is not None
    results = [form.bound[scale].module(feature)]
    if form.render is not None:
        assert form.prepare is not None
        steps = torch.tensor([scale, scale], dtype=torch.float32)
        kernel = form.prepare.module(torch.from_numpy(subpixel_centres(scale)), steps)
        results.append(form.render.module(feature, kernel))
    if tuple(results[0].shape[2:]) == grid.output_size:
        return results
    return [resample(result, grid.rows, grid.cols) for result in results]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "igconv", "latent": 32},
        {"name": "liif", "hidden": [32, 32, 32]},
        {"name": "liif", "hidden": [32]},
        {"name": "spconv", "scale": 4},
    ],
    ids=lambda options: f"{options['name']}{len(options)}",
)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_deploy_form_is_the_training_form(
    options: dict[str, Any], dtype: torch.dtype, limit: float
) -> None:
    net = network(options, SMALL, normalisation=NORM).to(dtype)
    if options["name"] == "igconv":  # a fresh one is nearly constant over the sub-pixels
        nn.init.normal_(net.upsampler.freq, std=0.5)
        nn.init.normal_(net.upsampler.amplitude, std=0.5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    image = torch.rand(2, 3, 13, 9, dtype=dtype)
    for scale in SCALES:
        grid = Grid.from_scale(13, 9, scale)
        expected = net(image, grid)
        assert tuple(expected.shape) == (2, 3, *grid.output_size)
        assert expected.std() > 1e-3
        for result in deployed(net, image, grid, dtype):
            assert result.dtype == expected.dtype
            assert (result - expected).abs().max().item() <= limit, scale
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "options",
    [
        {"name": "igconv", "latent": 32},
        {"name": "igconv-plus", "latent": 32},
        {"name": "liif", "hidden": [32]},
        {"name": "spconv", "scale": 4},
    ],
    ids=lambda options: options["name"],
)
@torch.no_grad()
def test_the_order_of_channels_changes_no_stage(options: dict[str, Any]) -> None:
    """A GPU gets half precision with channels last, whatever tensors the stages hold."""
    form = network(options, SMALL, normalisation=NORM).deploy()
    image, grid = torch.rand(1, 3, 13, 9), Grid.from_scale(13, 9, 4)

    def made() -> list[Tensor]:
        out = form.encode.module(image)
        features = [out] if isinstance(out, Tensor) else list(out)
        if form.bound:
            return [*features, form.bound[4].module(*features)]
        assert form.render is not None
        return [*features, form.render.module(*features, *GridTensors.of(grid))]

    expected = made()
    for stage in form.stages():
        convolutions_channels_last(stage.module)
    weights = [part.weight for part in form.encode.module.modules() if isinstance(part, nn.Conv2d)]
    assert any(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    for one, other in zip(made(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("height", [1, 2])
@torch.no_grad()
def test_smallest_images(height: int) -> None:
    for options in ({"name": "igconv", "latent": 32}, {"name": "liif", "hidden": [32, 32]}):
        net = network(options, SMALL)
        image = torch.rand(1, 3, height, 1)
        for scale in (1, 2.7, 4):
            grid = Grid.from_scale(height, 1, scale)
            expected = net(image, grid)
            for result in deployed(net, image, grid, torch.float32):
                assert result.shape == expected.shape
                assert (result - expected).abs().max().item() <= 1e-5


def published_liif(decoder: nn.Module, feature: Tensor, out_height: int, out_width: int) -> Tensor:
    """LIIF with all three of its additions, in the published float coordinates on [-1, 1].

    Cell centres of an axis of n samples lie at ``-1 + (2i + 1) / n``. The four neighbours of a
    query are the samples nearest to it moved by half a feature cell; each is weighted with the
    area of the rectangle between the query and the diagonally opposite one.
    """
    n, _, height, width = feature.shape
    dtype = feature.dtype
    columns = functional.unfold(feature, 3, padding=1).reshape(n, -1, height, width)

    def centres(count: int) -> Tensor:
        return -1 + (2 * torch.arange(count, dtype=dtype) + 1) / count

    def lattice(rows: int, cols: int) -> Tensor:
        return torch.stack(torch.meshgrid(centres(rows), centres(cols), indexing="ij"), dim=-1)

    def nearest(values: Tensor, at: Tensor) -> Tensor:
        found = functional.grid_sample(
            values, at.flip(-1)[:, None], mode="nearest", align_corners=False
        )
        return found[:, :, 0].transpose(1, 2)

    query = lattice(out_height, out_width).reshape(1, -1, 2).expand(n, -1, -1)
    places = lattice(height, width).permute(2, 0, 1)[None].expand(n, -1, -1, -1)
    size = torch.tensor([height, width], dtype=dtype)
    cell = size * torch.tensor([2 / out_height, 2 / out_width], dtype=dtype)

    predictions, areas = [], []
    for step_y in (-1, 1):
        for step_x in (-1, 1):
            moved = query + torch.tensor([step_y, step_x], dtype=dtype) / size + 1e-6
            moved = moved.clamp(-1 + 1e-6, 1 - 1e-6)
            relative = (query - nearest(places, moved)) * size
            inputs = [nearest(columns, moved), relative, cell.expand_as(relative)]
            predictions.append(decoder(torch.cat(inputs, dim=-1)))
            areas.append(relative.prod(dim=-1).abs() + 1e-9)
    total = torch.stack(areas).sum(dim=0)
    out = sum(p * (a / total)[..., None] for p, a in zip(predictions, areas[::-1], strict=True))
    assert isinstance(out, Tensor)
    return out.transpose(1, 2).reshape(n, 3, out_height, out_width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1, *SCALES, 5, 1.3, math.pi, 8.5, (1.5, 6)])
@torch.no_grad()
def test_liif_against_the_published_formulas(
    scale: float | tuple[float, float], dtype: torch.dtype
) -> None:
    liif = upsampler("liif", 8, hidden=[32, 32]).to(dtype)
    feature = torch.randn(2, 8, 13, 9, dtype=dtype)
    grid = Grid.from_scale(13, 9, scale)
    got = liif.render({"feature": feature}, grid, {})
    expected = published_liif(liif.mlp, feature, *grid.output_size)
    # On the centres of the last LR row or column all published areas are rounding noise.
    kept = [
        torch.from_numpy(~((axis.index == axis.n - 1) & (axis.offset == 0)))
        for axis in (grid.rows, grid.cols)
    ]
    noisy = sum(int((~keep).sum()) for keep in kept)
    odd = [s % 2 == 1 for s in (scale if isinstance(scale, tuple) else (scale, scale))]
    assert noisy == sum(odd)
    error = (got - expected).abs()[:, :, kept[0]][:, :, :, kept[1]]
    assert error.max().item() <= 2e-6
    assert got.std() > 0.01


def test_liif_renders_in_bands_and_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    liif = upsampler("liif", 8, hidden=[16]).double()
    feature = torch.randn(2, 8, 7, 5, dtype=torch.float64)
    grid = Grid.from_scale(7, 5, 3.4)
    whole = liif.render({"feature": feature}, grid, {})
    part = liif.render({"feature": feature}, grid.region(3, 2, 20, 11), {})
    torch.testing.assert_close(part, whole[:, :, 3:20, 2:11], rtol=0, atol=1e-14)
    monkeypatch.setattr(type(liif), "queries_per_chunk", 40)
    torch.testing.assert_close(
        liif.render({"feature": feature}, grid, {}), whole, rtol=0, atol=1e-14
    )


def literal_kernel(igconv: Any, scale: int, max_s: int) -> np.ndarray:
    """The kernel number by number: K[rgb, u, v, row]."""
    value = {name: p.detach().numpy() for name, p in igconv.named_parameters()}
    rows, latent = value["freq"].shape
    half = latent // 2
    layers = sorted({int(name.split(".")[1]) for name in value if name.startswith("mlp.")})
    out = np.zeros((3, scale, scale, rows))
    for row in range(rows):
        for u in range(scale):
            for v in range(scale):
                d_y, d_x = (2 * u + 1) / scale - 1, (2 * v + 1) / scale - 1
                code = np.zeros(latent)
                for k in range(half):
                    phase = value["phase.weight"][k, 0] * (2 / min(scale, max_s))
                    theta = value["freq"][row, k] * d_x + value["freq"][row, half + k] * d_y
                    theta += phase + value["phase.bias"][k]
                    code[k] = math.cos(math.pi * theta) * value["amplitude"][row, k]
                    code[half + k] = math.sin(math.pi * theta) * value["amplitude"][row, half + k]
                for layer in layers:
                    code = value[f"mlp.{layer}.weight"] @ code + value[f"mlp.{layer}.bias"]
                    if layer != layers[-1]:
                        code = np.maximum(code, 0)
                out[:, u, v, row] = code
    return out


@pytest.mark.parametrize("scale", [2, 3, 5])
@torch.no_grad()
def test_igconv_kernel_against_a_literal_loop(scale: int) -> None:
    igconv = upsampler("igconv", 2, latent=6, hidden_layers=2, max_s=4).double()
    nn.init.normal_(igconv.freq)
    nn.init.normal_(igconv.amplitude)
    got = igconv.prepare(scale)["kernel"].numpy()
    assert got.shape == (3, scale, scale, 18)
    # Centres of sub-pixels are float32 at the border of the graph.
    np.testing.assert_allclose(got, literal_kernel(igconv, scale, 4), atol=1e-6)
    assert got.std() > 0.01


@torch.no_grad()
def test_igconv_pixels_against_a_literal_convolution() -> None:
    igconv = upsampler("igconv", 2, latent=6, hidden_layers=1).double()
    nn.init.normal_(igconv.amplitude)
    feature = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    kernel = igconv.prepare(3)
    got = igconv.render({"feature": feature}, Grid.from_scale(3, 4, 3), kernel)
    padded = functional.pad(feature, (1, 1, 1, 1))[0].numpy()
    weights = kernel["kernel"].numpy()
    for y, x in ((0, 0), (4, 7), (8, 11), (5, 3)):
        patch = padded[:, y // 3 : y // 3 + 3, x // 3 : x // 3 + 3].reshape(-1)
        expected = weights[:, y % 3, x % 3] @ patch
        np.testing.assert_allclose(got[0, :, y, x].numpy(), expected, atol=1e-12)


def seen(net: Network, size: int, grid: Grid, y: int, x: int) -> tuple[int, int, int, int]:
    """Rows and columns of the image, first and last, that an output pixel depends on."""
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    out: Tensor = net(image, grid)
    out[0, :, y, x].sum().backward()
    assert image.grad is not None
    used = image.grad[0].abs().sum(dim=0) > 0
    rows, cols = torch.nonzero(used.any(dim=1)), torch.nonzero(used.any(dim=0))
    return int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1])


def test_an_output_pixel_looks_as_far_as_its_convolutions() -> None:
    encoder = {"name": "edsr", "width": 16, "blocks": 1}
    reach = 4  # head, two in the block, tail
    for options in ({"name": "spconv", "scale": 2}, {"name": "igconv", "latent": 16}):
        net = network(options, encoder).double()
        grid = Grid.from_size(21, 21, 42, 42)
        assert seen(net, 21, grid, 21, 20) == (10 - reach - 1, 10 + reach + 1) * 2
    net = network({"name": "liif", "hidden": [32]}, encoder).double()
    grid = Grid.from_scale(21, 21, 2)
    # Unfolding adds one; u(21) = 10.25 has the neighbours 10 and 11, u(20) = 9.75 has 9 and 10.
    assert seen(net, 21, grid, 21, 20) == (
        10 - reach - 1,
        11 + reach + 1,
        9 - reach - 1,
        10 + reach + 1,
    )


@torch.no_grad()
def test_a_crop_renders_its_part_of_the_whole() -> None:
    net = network({"name": "liif", "hidden": [16]}, SMALL).double()
    image = torch.rand(1, 3, 40, 36, dtype=torch.float64)
    grid = Grid.from_scale(40, 36, 2.7)
    whole = net(image, grid)
    region = (40, 45, 60, 60)
    plain = grid.region(*region)
    reach = 2 + 2 * SMALL["blocks"] + 1  # type: ignore[operator]
    (top, bottom), (left, right) = plain.rows.span(), plain.cols.span()
    top, left, bottom, right = top - reach, left - reach, bottom + reach, right + reach
    assert top > 0
    assert left > 0
    assert bottom < 40
    assert right < 36
    part = net(image[:, :, top:bottom, left:right], grid.region(*region, origin=(top, left)))
    torch.testing.assert_close(part, whole[:, :, 40:60, 45:60], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("scale", "native"), [(1, 2), (2, 2), (2.1, 3), (2.7, 3), ((2, 3.5), 4), (4, 4), (0.5, 2)]
)
@torch.no_grad()
def test_lattice_networks_answer_any_scale(scale: Any, native: int) -> None:
    net = network({"name": "igconv", "latent": 16}, SMALL)
    grid = Grid.from_scale(13, 9, scale)
    assert net.native_scale(grid) == native
    image = torch.rand(1, 3, 13, 9)
    out = net(image, grid)
    assert tuple(out.shape[2:]) == grid.output_size
    if grid.output_size != (13 * native, 9 * native):
        full = net(image, Grid.from_scale(13, 9, native))
        assert out.mean().item() == pytest.approx(full.mean().item(), abs=0.02)
    with pytest.raises(UsageError, match="largest scale"):
        net(image, Grid.from_scale(13, 9, 4.2))


def config(**changes: Any) -> dict[str, Any]:
    return {"encoder": dict(SMALL), "upsampler": {"name": "spconv", "scale": 2}, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": {"name": "resnet"}}, "unknown encoder 'resnet'; known: .*edsr"),
        ({"upsampler": {"name": "nearest"}}, "known: .*igconv, .*liif, .*spconv"),
        ({"encoder": {"name": "edsr", "depth": 3}}, "no option depth; known: .*blocks.*width"),
        ({"upsampler": {"name": "spconv"}}, "needs option scale"),
        ({"upsampler": {"name": "spconv", "scale": 2, "in_channels": 3}}, "no option in_channels"),
        ({"upsampler": {"name": "spconv", "scale": 1.5}}, "integer scale"),
        ({"upsampler": {"name": "igconv", "scales": [2, 2.5]}}, "integer scales"),
        ({"upsampler": {"name": "igconv", "latent": 7}}, "even latent"),
        ({"upsampler": {"name": "liif", "hidden": []}}, "at least one hidden"),
        ({"encoder": {"name": "edsr", "blocks": 0}}, "at least 1"),
        ({"encoder": {}}, r"encoder\.name"),
        ({"decoder": {}}, "unknown model settings: decoder"),
        ({"normalisation": {"std": 0}}, "positive std"),
        ({"normalisation": {"mean": [1, 2]}}, "3 means"),
        ({"normalisation": {"mena": [1, 2, 3]}}, "mena"),
        ({"scale": {"min": 4, "max": 2}}, "min <= max"),
    ],
)
def test_wrong_configurations_say_what_is_known(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        build_network(config(**changes))
    assert "\n" not in str(caught.value)


def test_configuration_is_complete_and_rebuilds_the_network() -> None:
    net = build_network(config())
    assert net.config["scale"] == {"min": 1.0, "max": 2.0}
    assert net.config["normalisation"] == {"mean": [0.0, 0.0, 0.0], "std": 1.0}
    again = build_network(net.config)
    assert again.config == net.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


def test_a_name_is_taken_once() -> None:
    add: Callable[[type[Upsampler]], type[Upsampler]] = UPSAMPLERS.register("liif")
    with pytest.raises(UsageError, match="already registered"):
        add(UPSAMPLERS.get("spconv"))
    assert add(UPSAMPLERS.get("liif")) is UPSAMPLERS.get("liif")


def test_normalisation_is_undone() -> None:
    net = network({"name": "spconv", "scale": 1}, SMALL, normalisation=NORM)
    with torch.no_grad():
        for p in net.upsampler.parameters():
            p.zero_()
        out = net(torch.rand(1, 3, 4, 4), Grid.from_scale(4, 4, 1))
    expected = torch.tensor(NORM["mean"])[None, :, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(out, expected)
