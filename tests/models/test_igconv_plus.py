from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import forms
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS, Network
from scaleport.models.upsamplers.igconv_plus import sample

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {
        "name": "igconv-plus",
        "scales": [2, 3, 4],
        "latent": 12,
        "hidden_layers": 1,
        "sample_latent": 8,
        "sample_layers": 1,
    },
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
}
ONE_SCALE = {**CONFIG, "upsampler": {**CONFIG["upsampler"], "scales": [3]}}


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    """Weights with which offsets reach a pixel or two and differ between sub-pixels."""
    plain = forms.make

    def make(config: dict[str, Any], vary: bool = True) -> Network:
        network = plain(config, vary)
        upsampler: Any = network.upsampler
        with torch.no_grad():
            for part in (upsampler, upsampler.sampler):
                part.freq.normal_(std=0.5)
                part.amplitude.normal_(std=0.5)
            for module in upsampler.sampler.mlp:
                if not isinstance(module, nn.ReLU):
                    module.weight.normal_(std=0.9)
        return network

    monkeypatch.setattr(forms, "make", make)
    return make


@pytest.mark.parametrize(("channels", "expected"), [(48, 289_024), (64, 362_752), (256, 1_247_488)])
def test_published_parameter_counts_of_the_sampler(channels: int, expected: int) -> None:
    upsampler: Any = UPSAMPLERS.create("igconv-plus", {}, in_channels=channels)
    assert forms.count(upsampler.sampler) == expected
    assert forms.count(upsampler) == expected + 4608 * channels + 264_195


def test_published_parameter_count_of_edsr_baseline() -> None:
    network = forms.make({"encoder": {"name": "edsr"}, "upsampler": {"name": "igconv-plus"}})
    assert network.parameter_count() == 2_142_275


def dihedral(kernel: Tensor) -> list[Tensor]:
    """The 8 rotations and reflections of float[..., 3, 3]."""
    turned = [torch.rot90(kernel, k, (-2, -1)) for k in range(4)]
    return turned + [k.flip(-1) for k in turned]


@torch.no_grad()
def test_kernels_are_means_of_their_rotations_and_reflections(lively: Any) -> None:
    upsampler: Any = lively(CONFIG).double().upsampler
    subpixel = torch.tensor([-0.5, 0.5])
    scale = torch.tensor([2.0])
    plain = torch.cat(
        [upsampler.kernel(subpixel, scale), upsampler.sampler.kernel(subpixel, scale, 4.0)]
    )
    kernels = plain.reshape(-1, 8, 3, 3)
    got = upsampler.prepare(2)["kernel"].reshape(-1, 8, 3, 3)
    feature = torch.randn(1, 8, 5, 6, dtype=torch.float64)
    # As published: the mean of 8 convolutions.
    outputs = [functional.conv2d(feature, k, padding=1) for k in dihedral(kernels)]
    want = torch.stack(outputs).mean(dim=0)
    assert (functional.conv2d(feature, got, padding=1) - want).abs().max() <= 1e-12
    assert got.std() > 0.01


@torch.no_grad()
def test_sampler_kernel_against_a_literal_loop(lively: Any) -> None:
    upsampler: Any = lively(CONFIG).double().upsampler
    part = upsampler.sampler
    subpixel = torch.tensor([-2 / 3, 0, 2 / 3], dtype=torch.float64)
    got = part.kernel(subpixel, torch.tensor([3.0]), 4.0)
    first, last = part.mlp[0], part.mlp[2]
    for row, u, v in ((0, 0, 2), (5, 1, 0), (71, 2, 2)):
        theta = part.freq[row, :4] * subpixel[v] + part.freq[row, 4:] * subpixel[u]
        theta = (theta + part.phase(torch.tensor([2 / 3], dtype=torch.float64))) * torch.pi
        both = torch.cat([theta.cos(), theta.sin()])
        code = torch.stack([both[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]) * part.amplitude[row]
        branches = []
        for half in (slice(0, 4), slice(4, 8)):
            hidden = functional.relu(first.weight[half] @ code[half] + first.bias[half])
            branches.append(
                last.weight[:6] @ hidden if half.start == 0 else last.weight[6:] @ hidden
            )
        assert (got[:, u, v, row] - torch.cat(branches)).abs().max() <= 1e-7


def test_a_fresh_sampler_shifts_all_colours_alike() -> None:
    last = forms.make(CONFIG).upsampler.sampler.mlp[-1]  # type: ignore[union-attr,index]
    assert torch.equal(last.weight[0], last.weight[4])
    assert torch.equal(last.weight[1], last.weight[3])
    assert last.weight[6:].abs().max() == 0


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_without_kernels_it_is_bilinear(scale: int) -> None:
    config = {**CONFIG, "normalisation": {"mean": [0.4, 0.3, 0.2], "std": 0.5}}
    network = forms.make(config)
    upsampler: Any = network.upsampler
    for linear in (upsampler.mlp[-1], upsampler.sampler.mlp[-1]):
        for parameter in linear.parameters():
            parameter.zero_()
    image = torch.rand(2, 3, 5, 7)
    want = functional.interpolate(image, scale_factor=scale, mode="bilinear")
    # What is sampled is added to the mean that stands for a convolution of zero.
    want = want + torch.tensor([0.4, 0.3, 0.2]).reshape(1, 3, 1, 1)
    got = network(image, Grid.from_scale(5, 7, scale))
    assert (got - want).abs().max() <= 2e-6


def test_samples_far_beyond_the_border_are_border_pixels() -> None:
    image = torch.rand(2, 3, 4, 5)
    for far in (1e2, 1e9, float("inf")):
        x = torch.full((2, 3, 2, 4, 5), far)
        x[:, :, 1] = -far
        y = torch.zeros_like(x)
        got = sample(image, x.clamp(-1e30, 1e30), y)
        assert torch.equal(got[:, :, 0], image[..., -1:].expand_as(image))
        assert torch.equal(got[:, :, 1], image[..., :1].expand_as(image))


def test_samples_of_a_long_image_keep_their_fraction() -> None:
    image = torch.arange(3000.0).remainder(2).expand(1, 3, 1, 3000).contiguous()
    got = sample(image, torch.full((1, 3, 1, 1, 3000), 0.3), torch.zeros(1, 3, 1, 1, 3000))
    want = image[..., :-1] * 0.7 + (1 - image[..., :-1]) * 0.3
    assert (got[:, :, 0, :, :-1] - want).abs().max() <= 1e-7


def test_deploy_form_is_the_training_form(lively: Any) -> None:
    forms.check_forms(CONFIG)
    forms.check_forms(CONFIG, size=(1, 2), scales=(2, 3.5))
    forms.check_forms({**CONFIG, "normalisation": {"mean": [0.4] * 3, "std": 0.5}}, scales=(3,))


@pytest.mark.networks
def test_onnx(lively: Any) -> None:
    forms.check_onnx(ONE_SCALE)


@pytest.mark.networks
def test_coreml(lively: Any, tmp_path: Path) -> None:
    only = ("prepare", "render", "render_x3")
    forms.check_coreml(ONE_SCALE, tmp_path, only=only, cases=(((9, 7), 2.7),))


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        UPSAMPLERS.create("igconv-plus", {"sample_latent": 6}, in_channels=4)
