"""The last rows of a tall image are as exact as the first, also at reduced precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import Upscaler, load
from scaleport.validation.parity.drift import MAX_RATIO, Drift, row_drift


def has_bf16() -> bool:
    openvino = pytest.importorskip("openvino")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


TALL = [(600, 64), (4000, 12)]
"""LR heights and widths; 4000 rows are more than the bundles declare."""


@pytest.mark.parametrize(("height", "width"), TALL)
@pytest.mark.parametrize("name", ["liif", "igconv"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "coreml"])
def test_float16_graphs(every_format, name, backend, height, width):
    drift = row_drift(load(every_format(name), backend, "fp16"), height, width, 1.5)
    assert drift.passed
    assert drift.ratio < MAX_RATIO == 2
    # Reduced precision really was at work: float32 is a hundred times better.
    assert drift.first > 1e-5


@pytest.mark.parametrize(("height", "width"), TALL)
@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_bfloat16_arithmetic(tiny_bundle, name, height, width):
    if not has_bf16():
        pytest.skip("this processor has no bf16 arithmetic for OpenVINO to use")
    options = SessionOptions(inference_precision="bf16")
    upscaler = load(tiny_bundle(name), "openvino", "fp32", options=options)
    drift = row_drift(upscaler, height, width, 1.5)
    assert drift.passed
    assert drift.first > 1e-4


class FloatRows(Stages):
    """What a decoder does that computes its row coordinates as low-precision floats."""

    dtype = torch.bfloat16

    def render_query(self, features, grid, check=True):
        place = torch.from_numpy(grid["row_index"] + grid["row_offset"])
        place = place.to(self.dtype).float().numpy()
        index = np.floor(place)
        offset = (place - index).astype(np.float32)
        rows = {"row_index": index.astype(np.int32), "row_offset": offset}
        return super().render_query(features, {**grid, **rows}, check)


class HalfRows(FloatRows):
    dtype = torch.float16


@pytest.mark.parametrize("kind", [FloatRows, HalfRows])
def test_float_coordinates_would_fail(tiny_bundle, kind):
    right = load(tiny_bundle("liif"), "onnxruntime", "fp32")
    stages = right.stages
    wrong = kind(stages.source, stages.backend, stages.found, stages.precision, stages.options)
    drift = row_drift(Upscaler(wrong, right.policy), 600, 64, 1.5)
    assert drift.ratio > MAX_RATIO
    assert not drift.passed


def test_float32_has_no_drift(tiny_bundle):
    drift = row_drift(load(tiny_bundle("liif"), "onnxruntime", "fp32"), 600, 64, 1.5)
    assert drift.first < 1e-5
    assert drift.passed


def test_ratio_ignores_rounding_noise():
    assert Drift(0.0, 9e-7).ratio == 1
    assert Drift(1e-7, 4e-6).ratio == pytest.approx(4)
    assert not Drift(1e-3, 2e-3).passed
    assert Drift(1e-3, 1.9e-3).passed


@pytest.mark.parametrize("last", [float("nan"), float("inf")])
def test_no_number_is_no_pass(last):
    assert not Drift(1e-3, last).passed
