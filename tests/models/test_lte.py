"""LTE against its equations, its forms against each other, and its files."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from scaleport.errors import ArtifactError, UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.importers import import_file

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {"name": "lte", "width": 12, "hidden": [10, 9]},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def changed(**options: Any) -> dict[str, Any]:
    return {**CONFIG, "upsampler": {**CONFIG["upsampler"], **options}}


def test_parameter_counts() -> None:
    # Two 3x3 convolutions, the phase, three hidden layers and the last one, counted by hand.
    convolutions = 2 * (64 * 9 * 256 + 256)
    mlp = 3 * (256 * 256 + 256) + 256 * 3 + 3
    assert forms.count(UPSAMPLERS.create("lte", {}, in_channels=64)) == convolutions + 256 + mlp
    assert convolutions + 256 + mlp == 493_827


def literal(
    state: dict[str, Tensor], feature: Tensor, image: Tensor, out: tuple[int, int], clip: float
) -> Tensor:
    """The published forward pass with float coordinates in [-1, 1], query by query."""
    height, width = feature.shape[1:]
    maps = {
        name: functional.conv2d(
            feature[None], state[f"{name}.weight"], state[f"{name}.bias"], padding=1
        )[0]
        for name in ("coef", "freq")
    }
    layers = sum(key.startswith("imnet") for key in state) // 2
    cell = torch.tensor([2 * height / out[0], 2 * width / out[1]], dtype=feature.dtype)
    # Their test script widens the cell of all axes by the scale over the largest one trained on.
    cell = cell * max(out[0] / height / clip, 1)
    result = torch.zeros(3, *out, dtype=feature.dtype)
    for a in range(out[0]):
        for b in range(out[1]):
            y, x = -1 + (2 * a + 1) / out[0], -1 + (2 * b + 1) / out[1]
            answers, areas = [], []
            for vy in (-1, 1):
                for vx in (-1, 1):
                    at = [
                        min(max(c + v / n + 1e-6, -1 + 1e-6), 1 - 1e-6)
                        for c, v, n in ((y, vy, height), (x, vx, width))
                    ]
                    i, j = (
                        math.floor((c + 1) / 2 * n)
                        for c, n in zip(at, (height, width), strict=True)
                    )
                    rel_y = (y - (-1 + (2 * i + 1) / height)) * height
                    rel_x = (x - (-1 + (2 * j + 1) / width)) * width
                    frequency = maps["freq"][:, i, j].reshape(-1, 2)
                    turned = frequency @ torch.tensor([rel_y, rel_x], dtype=feature.dtype)
                    turned = turned + state["phase.weight"] @ cell
                    waves = torch.cat([torch.cos(np.pi * turned), torch.sin(np.pi * turned)])
                    value = maps["coef"][:, i, j] * waves
                    for k in range(layers):
                        key = f"imnet.layers.{2 * k}"
                        value = state[f"{key}.weight"] @ value + state[f"{key}.bias"]
                        value = functional.relu(value) if k < layers - 1 else value
                    answers.append(value)
                    areas.append(abs(rel_y * rel_x) + 1e-9)
            total = sum(areas)
            for value, area in zip(answers, areas[::-1], strict=True):
                result[:, a, b] += value * (area / total)
    low = functional.interpolate(image[None], size=out, mode="bilinear", align_corners=False)
    return result + low[0]


def file_state(width: int, channels: int, hidden: list[int]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * 0.2
        state[f"{name}.bias"] = torch.randn(outputs) * 0.2

    conv("encoder.head.0", 3, channels)
    for i in (0, 2):
        conv(f"encoder.body.0.body.{i}", channels, channels)
    conv("encoder.body.1", channels, channels)
    conv("coef", channels, width)
    conv("freq", channels, width)
    state["phase.weight"] = torch.randn(width // 2, 2) * 0.2
    sizes = [width, *hidden, 3]
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        state[f"imnet.layers.{2 * i}.weight"] = torch.randn(outputs, inputs) * 0.3
        state[f"imnet.layers.{2 * i}.bias"] = torch.randn(outputs) * 0.3
    return state


@torch.no_grad()
@pytest.mark.parametrize("out", [(11, 14), (20, 24), (40, 48), (6, 9)])
def test_a_file_against_the_published_forward_pass(out: tuple[int, int], tmp_path: Path) -> None:
    state = file_state(12, 6, [10, 9])
    description = {"name": "lte", "args": {"encoder_spec": {"name": "edsr-baseline", "args": {}}}}
    torch.save({"model": {**description, "sd": state}, "epoch": 1}, tmp_path / "a.pth")
    found = import_file(tmp_path / "a.pth")
    assert (found.title, found.project) == ("EDSR-LTE", "LTE (jaewon-lee-b/lte)")
    assert any("x4" in line for line in found.assumed)
    network = found.network.double()
    image = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    grid = Grid.from_size(5, 6, *out)
    x = (image - 0.5) / 0.5
    feature = network.encoder(x)[0]
    double = {key: value.double() for key, value in state.items()}
    got = network(image, grid)[0]
    # Both axes have the same scale beyond x4, where the authors clip both by one of them.
    want = literal(double, feature, x[0], out, 4.0) * 0.5 + 0.5
    assert (got - want).abs().max() <= 1e-5


def test_files_that_are_not_whole(tmp_path: Path) -> None:
    state = file_state(12, 6, [10])
    del state["phase.weight"]
    torch.save({"model": {"name": "lte", "args": {}, "sd": state}}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=r"a\.pth"):
        import_file(tmp_path / "a.pth")
    state = file_state(12, 6, [10])
    state["imnet.layers.0.weight"] = torch.zeros(10, 13)
    torch.save({"model": {"name": "lte", "args": {}, "sd": state}}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match="not supported"):
        import_file(tmp_path / "a.pth")


def test_deploy_form_is_the_training_form() -> None:
    forms.check_forms(CONFIG, scales=(*forms.SCALES, 1, 30))
    forms.check_forms(CONFIG, size=(1, 2))
    forms.check_forms(changed(scale_max=0.0, hidden=[7]), scales=(2.7, 8))


@torch.no_grad()
def test_the_cell_stops_shrinking() -> None:
    clipped, free = forms.make(CONFIG), forms.make(changed(scale_max=0.0))
    image = torch.rand(1, 3, 5, 4)
    for scale, same in ((4.0, True), (3.0, True), (8.0, False)):
        grid = Grid.from_scale(5, 4, scale)
        assert torch.equal(clipped(image, grid), free(image, grid)) is same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 7}, "even width"),
        ({"hidden": []}, "hidden layer"),
        ({"scale_max": -1.0}, "scale_max"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        UPSAMPLERS.create("lte", options, in_channels=8)


@pytest.mark.slow
def test_graphs_in_onnx_and_openvino() -> None:
    forms.check_onnx(CONFIG, only=("render",))


@pytest.mark.slow
def test_program_in_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path, only=("render",))
