"""Mixed float16: what stays float32 is chosen, recorded, and found when it is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scaleport
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import NotFiniteError, UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.models import build_network, save_checkpoint
from scaleport.validation.overflow import locate
from scaleport.validation.parity import validate
from scaleport.validation.pictures import picture
from scaleport.validation.report import failures

TAIL = "encoder.tail"


@pytest.fixture(scope="module")
def hot(tmp_path_factory):
    """A network whose last encoder layer is beyond float16, and harmless after it."""
    torch.manual_seed(2)
    config = {
        "encoder": {"name": "edsr", "width": 8, "blocks": 1},
        "upsampler": {"name": "spconv", "scale": 2},
        "scale": {"min": 1.0, "max": 2.0},
    }
    network = build_network(config).eval()
    with torch.no_grad():
        network.encoder.tail.bias.fill_(1e5)
        network.upsampler.conv.weight.mul_(1e-6)
    path = tmp_path_factory.mktemp("hot") / "hot.safetensors"
    save_checkpoint(network, path)
    return path


def bundle_of(path, name, **options):
    target = path.with_name(f"{name}.bundle")
    export_bundle(path, target, ExportOptions(formats=("onnx",), **options))
    return target


def test_overflow_is_named(hot):
    bundle = bundle_of(hot, "plain", precisions=("fp16",))
    upscaler = scaleport.load(bundle, "onnxruntime", "fp16")
    with pytest.raises(NotFiniteError, match="try precision fp32") as caught:
        upscaler(picture(9, 8), scale=2)
    assert caught.value.stage == "encode"
    told = locate(open_bundle(bundle), "fp16", caught.value)
    assert "encoder" in told and "whose inputs reach" in told
    parity = validate(bundle, ["onnxruntime"], ["fp16"], "quick")
    assert "first in Conv" in failures(parity)[0].note
    assert TAIL in failures(parity)[0].note


def test_a_module_kept_in_float32_does_not_overflow(hot):
    # The border behind it is float32 too, and so is the sum that its result goes into.
    bundle = bundle_of(hot, "kept", precisions=("fp32", "fp16"), keep_float32=("encoder",))
    image = picture(9, 8)
    exact = scaleport.load(bundle, "onnxruntime", "fp32")(image, scale=2)
    half = scaleport.load(bundle, "onnxruntime", "fp16").stages.bundle
    graph = half.graph("onnx", "encode", "fp16")
    assert "encoder" in graph.float32_nodes
    assert any("encoder" in line and line.endswith("Conv") for line in graph.float32_operations)
    assert np.isfinite(exact).all()


def test_the_plan_lists_what_computes_in_float32(tiny_bundle):
    graphs = read_manifest(tiny_bundle("liif")).graphs["onnx"]
    half = {g.stage: g for g in graphs if g.precision == "fp16"}
    # Relative coordinates and their tables are float32, the products of the decoder are not.
    assert any(line.endswith("Mul") for line in half["render"].float32_operations)
    assert not any(line.endswith(("MatMul", "Gemm")) for line in half["render"].float32_operations)
    assert all(g.float32_operations == () for g in graphs if g.precision == "fp32")


def test_unknown_module(hot):
    with pytest.raises(UsageError, match=r"there is no module 'encoder\.nose'"):
        bundle_of(hot, "wrong", precisions=("fp16",), keep_float32=("encoder.nose",))


def test_module_inside_another(hot):
    with pytest.raises(UsageError, match="is part of encoder"):
        bundle_of(hot, "twice", precisions=("fp16",), keep_float32=("encoder", TAIL))
