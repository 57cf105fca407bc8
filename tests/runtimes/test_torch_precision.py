"""PyTorch computes what was asked for, and its switches are put back."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from scaleport.runtimes.base import SessionOptions
from scaleport.runtimes.torch_precision import IEEE, TF32, float32_arithmetic
from scaleport.runtimes.upscaler import load
from scaleport.validation.pictures import picture


def switches():
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.mkldnn.conv.fp32_precision,
    )


@pytest.fixture
def lowered():
    """A process that is set to lower arithmetic, as some programs are."""
    before = switches()
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield switches()
    (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.backends.mkldnn.conv.fp32_precision,
    ) = before


@pytest.mark.parametrize(("setting", "gpu"), [(IEEE, "ieee"), (TF32, "tf32")])
def test_switches_are_set_for_the_block_and_put_back(lowered, setting, gpu):
    with float32_arithmetic(setting), float32_arithmetic(setting):
        assert switches() == (gpu, gpu, "ieee", "ieee")
    assert switches() == lowered
    with pytest.raises(KeyError), float32_arithmetic(setting):
        raise KeyError
    assert switches() == lowered


def test_calls_that_want_something_else_wait(lowered):
    seen = []

    def other():
        with float32_arithmetic(TF32):
            seen.append(switches()[0])

    with float32_arithmetic(IEEE):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        assert seen == []
        assert switches()[0] == "ieee"
    thread.join(10)
    assert seen == ["tf32"]
    assert switches() == lowered


def test_a_process_set_to_lower_arithmetic_gets_the_same_pixels(tiny_bundle, lowered):
    up = load(tiny_bundle("igconv"), "torch", "fp32", device="cpu")
    image = picture(24, 20)
    inside = up(image, 2.0)
    with float32_arithmetic(IEEE):
        outside = up(image, 2.0)
    np.testing.assert_array_equal(inside, outside)
    wanted = load(tiny_bundle("igconv"), "onnxruntime", "fp32")(image, 2.0)
    np.testing.assert_allclose(inside, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("asked", ["bf16", "fp16"])
def test_lower_arithmetic_is_what_it_says(tiny_bundle, asked):
    bundle, image = tiny_bundle("igconv"), picture(24, 20)
    options = SessionOptions(inference_precision=asked, device="cpu")
    up = load(bundle, "torch", "fp32", options=options)
    exact = load(bundle, "torch", "fp32", device="cpu")(image, 2.0)
    error = np.abs(up(image, 2.0) - exact).max()
    assert 1e-7 < error < 0.05
    assert asked in up.device


def test_threads_are_those_asked_for_and_only_while_it_computes(tiny_bundle):
    before = torch.get_num_threads()
    seen = []
    up = load(tiny_bundle("igconv"), "torch", "fp32", threads=before + 1, device="cpu")
    module = up.stages.session("encode")._stage.module
    hook = module.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    up(picture(12, 12), 2.0)
    hook.remove()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
