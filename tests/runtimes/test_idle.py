"""A backend's threads rest between calls: another stage, or the application, has the processor."""

import time

import numpy as np
import pytest

from scaleport.runtimes.upscaler import load


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("family", ["liif", "igconv"])
def test_threads_rest(tiny_bundle, backend, family):
    up = load(tiny_bundle(family), backend, "fp32", threads=2)
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    up(image, scale=2)
    used = []
    for _ in range(3):
        up(image, scale=2)
        start = time.process_time()
        time.sleep(0.1)
        used.append(time.process_time() - start)
    assert min(used) < 0.02  # a thread that spins uses all of it
