"""Mixed float16: what stays float32 is chosen, recorded, and found when it is missing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import scaleport
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import ExportError, NotFiniteError, UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.models import build_network, save_checkpoint
from scaleport.validation.metrics import psnr
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate
from scaleport.validation.pictures import picture
from scaleport.validation.report.summary import failures

TAIL = "encoder.tail"


@pytest.fixture(scope="module")
def hot(tmp_path_factory):
    """A network with a layer that is beyond float16, and harmless after the next one."""
    torch.manual_seed(2)
    config = {
        "encoder": {"name": "edsr", "width": 8, "blocks": 1},
        "upsampler": {"name": "spconv", "scale": 2},
        "scale": {"min": 1.0, "max": 2.0},
    }
    network = build_network(config).eval()
    with torch.no_grad():
        network.encoder.body[0].conv1.weight.fill_(1e5)
        network.encoder.body[0].conv2.weight.mul_(1e-7)
    path = tmp_path_factory.mktemp("hot") / "hot.safetensors"
    save_checkpoint(network, path)
    return path


def bundle_of(path, name, **options):
    target = path.with_name(f"{name}.bundle")
    export_bundle(path, target, ExportOptions(formats=("onnx",), **options))
    return target


def test_overflow_ends_the_export_and_is_named(hot):
    with pytest.raises(ExportError, match=r"first in Conv .* in encoder\.body\.0\.conv1") as caught:
        bundle_of(hot, "plain", precisions=("fp16",))
    assert "--keep-float32" in str(caught.value)


def test_a_module_kept_in_float32_does_not_overflow(hot):
    block = "encoder.body.0"
    bundle = bundle_of(hot, "kept", precisions=("fp32", "fp16"), keep_float32=(block,))
    graph = open_bundle(bundle).graph("onnx", "encode", "fp16")
    assert block in graph.float32_nodes
    wide = [line for line in graph.float32_operations if line.endswith(": Conv")]
    assert len(wide) == 2 and all(line.startswith(block) for line in wide)
    image = picture(9, 8)
    exact = scaleport.load(bundle, "onnxruntime", "fp32")(image, scale=2)
    half = scaleport.load(bundle, "onnxruntime", "fp16")(image, scale=2)
    assert psnr(half, exact) > 55


def test_overflow_found_by_validation_names_the_operation(tiny_bundle, tmp_path):
    bundle = tmp_path / "hot.bundle"
    shutil.copytree(tiny_bundle("liif"), bundle)
    path = bundle / "onnx/fp16/encode.onnx"
    model = onnx.load(path)
    node = next(
        n for n in model.graph.node if any(p.value.endswith(TAIL) for p in n.metadata_props)
    )
    tensor = next(i for i in model.graph.initializer if i.name == node.input[1])
    large = np.full_like(numpy_helper.to_array(tensor), 60000)
    tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
    onnx.save(model, path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = sha256_file(path)
    manifest["files"]["onnx/fp16/encode.onnx"] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(NotFiniteError, match="try precision fp32") as caught:
        scaleport.load(bundle, "onnxruntime", "fp16")(picture(9, 8), scale=2)
    assert caught.value.stage == "encode"
    parity = validate(bundle, ValidationOptions(["onnxruntime"], ["fp16"], "quick"))
    staged = next(r for r in failures(parity) if r.mode == "staged")
    assert f"in {TAIL}, whose inputs reach" in staged.note


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
