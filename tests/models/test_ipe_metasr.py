from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import pytest
import torch

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 6, "blocks": 1},
    "upsampler": {"name": "ipe-metasr", "hidden": 12},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


def test_parameter_count() -> None:
    assert forms.count(UPSAMPLERS.create("ipe-metasr", {}, in_channels=64)) == 454_592


def test_deploy_form_is_the_training_form() -> None:
    forms.check_forms(CONFIG)
    cell = {**CONFIG["upsampler"], "radius_unit": "cell", "bands": 3}
    forms.check_forms({**CONFIG, "upsampler": cell}, scales=(1, 2.7))


@pytest.mark.parametrize("scale", [2, 3])
@torch.no_grad()
def test_an_integer_scale_is_one_convolution(scale: int) -> None:
    network = forms.make(CONFIG)
    form = network.deploy()
    stage = form.stage(f"render_x{scale}")
    assert stage is not None
    image = torch.rand(2, 3, 7, 5)
    want = network(image, Grid.from_scale(7, 5, scale))
    got = stage.module(form.encode.module(image))
    assert (got - want).abs().max().item() <= 1e-5


def test_onnx() -> None:
    forms.check_onnx(CONFIG, only=("render",))


def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml(CONFIG, tmp_path, only=("render",))


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="half or cell"):
        UPSAMPLERS.create("ipe-metasr", {"radius_unit": "turn"}, in_channels=4)
