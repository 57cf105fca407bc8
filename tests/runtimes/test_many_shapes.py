"""Memory of a process that upscales pictures of many sizes."""

from __future__ import annotations

import numpy as np
import pytest

from scaleport.runtimes.budget import resident
from scaleport.runtimes.upscaler import load


@pytest.mark.long
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_many_shapes_do_not_fill_the_memory(tiny_bundle, backend):
    """2400 pictures of random sizes take at most 1.3 times what 100 of them took."""
    rng = np.random.default_rng(0)
    up = load(tiny_bundle("igconv"), backend, "fp32")
    after_first = 0
    for number in range(2400):
        height, width = rng.integers(8, 160, 2)
        up(rng.integers(0, 256, (height, width, 3), np.uint8), 2.0)
        if number == 99:
            after_first = resident()
    assert resident() <= 1.3 * after_first
