"""Rounding to int8 does not touch the grid: the last rows are as good as the first."""

from __future__ import annotations

import pytest

from scaleport.runtimes.upscaler import load
from scaleport.validation.parity.drift import row_drift


@pytest.mark.parametrize(("height", "width"), [(600, 32), (4000, 12)])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_has_no_drift(tiny_int8, backend, height, width):
    drift = row_drift(load(tiny_int8("liif"), backend, "int8"), height, width, 1.5)
    assert drift.passed
    assert drift.first > 1e-4
