from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Axis, Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.positions import GridTensors
from scaleport.models.upsamplers.encoding import axis_code

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 8, "blocks": 1},
    "upsampler": {"name": "ipe-liif", "hidden": [12, 16, 10]},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def changed(**options: Any) -> dict[str, Any]:
    return {**CONFIG, "upsampler": {**CONFIG["upsampler"], **options}}


def test_published_parameter_counts() -> None:
    assert forms.count(UPSAMPLERS.create("ipe-liif", {}, in_channels=64)) == 829_187
    plain = UPSAMPLERS.create("ipe-liif", {"skips": False}, in_channels=64)
    assert forms.count(plain) == 356_099
    network = forms.make({"encoder": {"name": "edsr"}, "upsampler": {"name": "ipe-liif"}})
    assert network.parameter_count() == 2_049_603


@pytest.mark.parametrize("unit", ["half", "cell"])
@pytest.mark.parametrize("scale", [1, 2.7, 30])
def test_code_is_the_mean_over_the_pixel(unit: str, scale: float) -> None:
    size = 1 if unit == "half" else 2
    offset = torch.tensor([0.0, 0.3, 0.99], dtype=torch.float64)
    for distance in (-1, 0, 1):
        at = torch.full((3,), distance, dtype=torch.int32)
        got = axis_code(offset, at, torch.tensor([scale], dtype=torch.float64), 4, unit)
        # Midpoint rule over the pixel's side.
        steps = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 - 0.5
        x = size * ((offset + distance)[:, None] + steps / scale)
        for band in range(4):
            turned = 2**band * math.pi * x
            want = (turned.sin().mean(dim=1), turned.cos().mean(dim=1))
            assert (got[:, band] - want[0]).abs().max() <= 1e-5
            assert (got[:, 4 + band] - want[1]).abs().max() <= 1e-5


def test_high_bands_keep_their_digits_in_float32() -> None:
    axis = Axis.whole(1000, 2718)
    offset, index = torch.from_numpy(axis.offset), torch.from_numpy(axis.index)
    zero = torch.zeros_like(index)
    codes = [
        axis_code(offset.to(t), zero, torch.tensor([100.0], dtype=t), 10, "half")
        for t in (torch.float32, torch.float64)
    ]
    assert (codes[0] - codes[1]).abs().max() <= 1e-6


def test_half_units_tell_neighbours_apart_and_cells_do_not() -> None:
    offset, scale = torch.tensor([0.3]), torch.tensor([2.7])
    for unit, same in (("half", False), ("cell", True)):
        codes = [
            axis_code(offset, torch.tensor([d], dtype=torch.int32), scale, 10, unit)
            for d in (0, -1)
        ]
        assert torch.allclose(*codes) is same


@torch.no_grad()
def test_against_a_literal_decoder() -> None:
    network = forms.make(CONFIG).double()
    upsampler: Any = network.upsampler
    feature = torch.randn(1, 8, 5, 4, dtype=torch.float64)
    grid = Grid.from_scale(5, 4, (2.7, 3.5))
    got = upsampler.render({"feature": feature}, grid, {})
    patches = functional.unfold(feature, 3, padding=1)[0].reshape(72, 5, 4)
    (rows, cols), (scale_y, scale_x) = (grid.rows, grid.cols), (grid.rows.scale, grid.cols.scale)
    for a, b in ((0, 0), (7, 3), (13, 13), (6, 13)):
        u, v = rows.index[a] + float(rows.offset[a]), cols.index[b] + float(cols.offset[b])
        want = torch.zeros(3, dtype=torch.float64)
        for dy in (0, 1):
            for dx in (0, 1):
                i = int(np.clip(math.floor(u) + dy, 0, 4))
                j = int(np.clip(math.floor(v) + dx, 0, 3))
                code = []
                for centre, s in ((u - i, scale_y), (v - j, scale_x)):
                    waves = [2**band * math.pi for band in range(10)]
                    damp = [math.sin(w / (2 * s)) / (w / (2 * s)) for w in waves]
                    code += [math.sin(w * centre) * d for w, d in zip(waves, damp, strict=True)]
                    code += [math.cos(w * centre) * d for w, d in zip(waves, damp, strict=True)]
                inputs = torch.cat([patches[:, i, j], torch.tensor(code, dtype=torch.float64)])
                x = functional.relu(upsampler.layers[0](inputs))
                x = functional.relu(upsampler.layers[1](torch.cat([x, inputs])))
                x = functional.relu(upsampler.layers[2](torch.cat([x, inputs])))
                weight = (u % 1 if dy else 1 - u % 1) * (v % 1 if dx else 1 - v % 1)
                want += upsampler.layers[3](x) * weight
        assert (got[0, :, a, b] - want).abs().max() <= 1e-6


def test_deploy_form_is_the_training_form() -> None:
    forms.check_forms(CONFIG, scales=(*forms.SCALES, 1, 30))
    forms.check_forms(CONFIG, size=(1, 2))
    forms.check_forms(changed(radius_unit="cell", bands=4), scales=(2.7,))
    forms.check_forms(changed(skips=False), scales=(2.7,))
    forms.check_forms(changed(hidden=[9]), scales=(2.7,))


def test_hoisted_queries_equal_the_training_form() -> None:
    upsampler: Any = forms.make(CONFIG).double().upsampler
    feature = torch.randn(2, 8, 4, 6, dtype=torch.float64, requires_grad=True)
    rng = np.random.default_rng(0)
    rows, cols = Axis.whole(4, 11), Axis.whole(6, 16)
    at, to = rng.integers(11, size=(2, 40)), rng.integers(16, size=(2, 40))
    query = [rows.index[at], rows.offset[at], cols.index[to], cols.offset[to]]
    tensors = [torch.from_numpy(q) for q in query]
    tensors = [t.double() if t.dtype == torch.float32 else t for t in tensors]
    scale = torch.tensor([[2.75, 16 / 6], [1.5, 3.0]], dtype=torch.float64)
    results = []
    for form in (upsampler.points, upsampler.train_points):
        out = form(feature, GridTensors(*tensors, scale))
        results.append(
            [out, *torch.autograd.grad(out.square().sum(), [feature, *upsampler.parameters()])]
        )
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-10


def test_onnx() -> None:
    forms.check_onnx(CONFIG)


def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": []}, "hidden layer"),
        ({"bands": 0}, "1 to 16 bands"),
        ({"radius_unit": "pixel"}, "half or cell"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        UPSAMPLERS.create("ipe-liif", options, in_channels=4)
