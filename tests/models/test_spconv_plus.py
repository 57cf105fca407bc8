from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import pytest
import torch
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS
from scaleport.models.upsamplers.spconv_plus import collapsed


def config(scale: int, width: int = 0) -> dict[str, Any]:
    return {
        "encoder": {"name": "edsr", "width": 6, "blocks": 1},
        "upsampler": {"name": "spconv-plus", "scale": scale, "width": width},
        "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
    }


@pytest.mark.parametrize(
    ("scale", "tail", "baseline", "large"),
    [
        (2, 149_443, 1_369_883, 40_729_627),
        (3, 334_083, 1_554_523, 43_680_027),
        (4, 297_155, 1_517_595, 43_089_947),
    ],
)
def test_published_parameter_counts(scale: int, tail: int, baseline: int, large: int) -> None:
    frozen = 24  # weights of mean shifts, published with the totals and not trained
    made = UPSAMPLERS.create("spconv-plus", {"scale": scale}, in_channels=64)
    assert forms.count(made) == tail
    assert 1_220_416 + tail + frozen == baseline
    with torch.device("meta"):
        wide = UPSAMPLERS.create("spconv-plus", {"scale": scale}, in_channels=256)
    assert 38_362_368 + forms.count(wide) + frozen == large


@pytest.mark.parametrize(("scale", "ring"), [(2, 1), (3, 1), (4, 3), (8, 7)])
@torch.no_grad()
def test_one_convolution_is_the_tail_inside_a_thin_ring(scale: int, ring: int) -> None:
    upsampler: Any = forms.make(config(scale)).double().upsampler
    feature = torch.randn(1, 6, 6, 5, dtype=torch.float64)
    want = upsampler.render({"feature": feature}, Grid.from_scale(6, 5, scale), {})
    kernel, bias = collapsed(upsampler.tail, scale)
    got = functional.pixel_shuffle(functional.conv2d(feature, kernel, bias, padding=2), scale)
    error = (got - want).abs().amax(dim=(0, 1))
    assert error[ring:-ring, ring:-ring].max() <= 1e-12
    assert error[ring - 1, :].max() > 1e-4


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_deploy_form_is_the_training_form_up_to_the_border(scale: int) -> None:
    scales = (scale,) if scale == 8 else (scale, scale - 0.3)
    for size in ((13, 9), (1, 1), (2, 3), (1, 7), (4, 2)):
        forms.check_forms(config(scale), scales=scales, size=size)
    forms.check_forms(config(scale, width=5), scales=scales)


def test_onnx() -> None:
    forms.check_onnx(config(4), cases=(((15, 7), 4), ((1, 5), 4), ((2, 2), 4)))


def test_coreml(tmp_path: Path) -> None:
    forms.check_coreml(config(4, width=5), tmp_path, cases=(((9, 7), 4), ((1, 5), 4)))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"scale": 5}, "2, 3, 4 or 8"), ({"scale": 2, "width": -1}, "at least 0")],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        UPSAMPLERS.create("spconv-plus", options, in_channels=4)
