"""Planted faults: each is found at the module where it was planted; a clean bundle has none."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from bisect_helpers import kept, rehash, traced_once
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file

from scaleport.bundle.reader import read_manifest
from scaleport.cli.main import main
from scaleport.errors import ArtifactError, UsageError
from scaleport.export import coreml, write_openvino
from scaleport.models import load_checkpoint
from scaleport.models.network import build_network
from scaleport.validation.bisection.bisect import bisect
from scaleport.validation.bisection.options import BisectOptions

__all__ = ["traced_once"]

CONV = "encoder.body.0.conv1"
LINEAR = {"liif": "render", "igconv": "prepare"}
"""The stage that holds linear layers."""
MODELS = ("liif", "igconv")
# 13 * 2.7 + 1/2 = 35.6: the floor is 35, and the nearest number 36.
TELLING = (13, 17)


def by_module(model, module, kind):
    """The first operation of a kind that came from a module."""
    return next(
        node
        for node in model.graph.node
        if node.op_type == kind and any(p.value == module for p in node.metadata_props)
    )


def change(model, name, function):
    tensor = next(i for i in model.graph.initializer if i.name == name)
    array = function(numpy_helper.to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def transpose_kernel(model):
    weight = by_module(model, CONV, "Conv").input[1]
    change(model, weight, lambda w: w.transpose(1, 0, 2, 3))


def drop_bias(model):
    del by_module(model, CONV, "Conv").input[2]


def round_size(model):
    node = next(n for n in model.graph.node if n.op_type == "Floor")
    node.op_type = "Round"


FAULTS = {
    "wrong kernel layout": ("encode", transpose_kernel, f"encode: {CONV}"),
    "dropped bias": ("encode", drop_bias, f"encode: {CONV}"),
    "wrong rounding": ("whole", round_size, "whole: front"),
}


SLOW = ("igconv", "wrong rounding")


def planted(source, target, fault, precision="fp32"):
    """A copy of a bundle with a fault in one ONNX graph and in the IR that is made of it."""
    stage, plant, _ = FAULTS[fault]
    shutil.copytree(source, target)
    path = target / "onnx" / precision / f"{stage}.onnx"
    model = onnx.load(path)
    plant(model)
    onnx.save(model, path)
    write_openvino.convert(model, target / "openvino" / precision / f"{stage}.xml")
    return rehash(target)


def search(bundle, backend, fault):
    stage = FAULTS[fault][0]
    return bisect(
        bundle, BisectOptions(backend, shape=TELLING, scale=2.7, stages=(stage,))
    ).divergence


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        # The whole graph of a lattice model has four parts to trace.
        pytest.param(n, f, marks=[pytest.mark.slow] if (n, f) == SLOW else [])
        for n in MODELS
        for f in FAULTS
    ],
)
def test_planted_fault_is_found_at_its_module(tiny_bundle, tmp_path, name, fault, backend):
    bundle = planted(tiny_bundle(name), tmp_path / "bad.bundle", fault)
    found = search(bundle, backend, fault)
    assert found is not None
    assert found.place == FAULTS[fault][2]
    if fault == "wrong rounding":
        assert (found.tensor, found.operation) == ("front/floored", "Round")
        assert (found.statistics.found_there, found.statistics.expected_there) == ("36", "35")
    else:
        assert found.reference_operation == "conv2d"
        assert found.statistics.max_abs > 1e-3
        assert found.statistics.psnr < 40


@pytest.mark.parametrize("name", MODELS)
def test_a_linear_layer_of_the_decoder(tiny_bundle, tmp_path, name):
    stage = LINEAR[name]
    shutil.copytree(tiny_bundle(name), tmp_path / "bad.bundle")
    path = tmp_path / "bad.bundle" / "onnx" / "fp32" / f"{stage}.onnx"
    model = onnx.load(path)
    constants = {i.name: i for i in model.graph.initializer}
    node = next(
        n
        for n in model.graph.node
        if n.op_type == "MatMul"
        and n.input[1] in constants
        and len({*constants[n.input[1]].dims}) == 1
    )
    module = next(p.value for p in node.metadata_props if p.key == "module")
    change(model, node.input[1], lambda w: w.T)
    onnx.save(model, path)
    found = bisect(
        rehash(tmp_path / "bad.bundle"), BisectOptions("onnxruntime", stages=(stage,))
    ).divergence
    assert found.place == f"{stage}: {module}"


@pytest.fixture
def huge(tiny_checkpoint, tmp_path):
    """A checkpoint whose first block goes beyond float16 and comes back, and the factor."""
    factor = 4e5

    def make(name):
        path = tmp_path / f"{name}-huge.safetensors"
        with safe_open(tiny_checkpoint(name), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        for key, tensor in tensors.items():
            if "body.0.conv1" in key:
                tensors[key] = tensor * factor
            elif "body.0.conv2.weight" in key:
                tensors[key] = tensor / factor
        save_file(tensors, path, metadata)
        return path, factor

    return make


@pytest.mark.parametrize("name", MODELS)
def test_overflow_of_float16_in_onnxruntime(tiny_bundle, tmp_path, huge, name):
    checkpoint, factor = huge(name)
    shutil.copytree(tiny_bundle(name), tmp_path / "bad.bundle")
    path = tmp_path / "bad.bundle" / "onnx" / "fp16" / "encode.onnx"
    model = onnx.load(path)
    first = by_module(model, CONV, "Conv")
    second = by_module(model, "encoder.body.0.conv2", "Conv")
    wide = np.float32(factor)
    for place in first.input[1:]:
        change(model, place, lambda w: (w.astype(np.float32) * wide).astype(np.float16))
    change(model, second.input[1], lambda w: (w.astype(np.float32) / wide).astype(np.float16))
    onnx.save(model, path)
    bundle = rehash(tmp_path / "bad.bundle")
    found = bisect(
        bundle, BisectOptions("onnxruntime", "fp16", stages=("encode",), checkpoint=checkpoint)
    ).divergence
    assert found.place == f"encode: {CONV}"
    assert found.statistics.not_finite > 0
    assert "NaN or infinite" in found.reason
    assert abs(float(found.statistics.expected_range[1])) > 65504


@pytest.mark.parametrize("fault", ["wrong kernel layout", "dropped bias", "overflow"])
def test_core_ml_programs(tiny_bundle, tiny_checkpoint, huge, tmp_path, monkeypatch, fault):
    shutil.copytree(tiny_bundle("liif"), tmp_path / "bad.bundle")
    overflow = fault == "overflow"
    precision = "fp16" if overflow else "fp32"
    checkpoint = huge("liif")[0] if overflow else tiny_checkpoint("liif")
    network = load_checkpoint(checkpoint)
    form = network.deploy(torch.float16 if overflow else torch.float32)
    conv = form.encode.module.get_submodule(CONV)
    with torch.no_grad():
        if fault == "wrong kernel layout":
            conv.weight.copy_(conv.weight.transpose(0, 1).clone())
        elif fault == "dropped bias":
            conv.bias.zero_()
    # The exporter compares what it wrote with the module, and would refuse an overflow.
    monkeypatch.setattr(coreml, "_check_numbers", lambda *_: None)
    bundle = tmp_path / "bad.bundle"
    package = f"coreml/{precision}/encode.mlpackage"
    coreml.export_stage(form.encode, bundle / package)
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = next(
        g for g in manifest["graphs"]["onnx"] if g["path"] == f"onnx/{precision}/encode.onnx"
    )
    manifest["graphs"]["coreml"] = [{**entry, "path": package}]
    for file in (bundle / package).rglob("*"):
        if file.is_file():
            manifest["files"][file.relative_to(bundle).as_posix()] = {"sha256": "", "bytes": 0}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    found = bisect(
        rehash(bundle), BisectOptions("coreml", precision, checkpoint=checkpoint)
    ).divergence
    assert found.place == f"encode: {CONV}"
    assert found.operation == "conv"
    assert (found.statistics.not_finite > 0) is overflow


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "coreml"])
def test_a_clean_bundle_has_none(every_format, backend, precision):
    found = bisect(every_format("liif"), BisectOptions(backend, precision))
    assert found.divergence is None
    assert found.notes == ()
    stages = {c.stage: c for c in found.compared}
    assert set(stages) == {"encode", "render"} | ({"whole"} if backend != "coreml" else set())
    least = 0.6 if backend == "coreml" else 0.7
    for compared in stages.values():
        # Lengths of shapes have no twin; everything else is compared.
        assert compared.matched >= least * compared.tensors
        assert compared.worst < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "coreml"])
@pytest.mark.parametrize("name", ["liif-small", "igconv-small", "scaleport-s"])
def test_the_shipped_models_are_clean(shipped_bundle, name, backend, precision):
    found = bisect(shipped_bundle(name), BisectOptions(backend, precision))
    assert found.divergence is None
    assert len(found.compared) >= 2


def test_command_line_names_the_module(tiny_bundle, tmp_path, capsys):
    bundle = planted(tiny_bundle("liif"), tmp_path / "bad.bundle", "dropped bias")
    line = ["bisect", str(bundle), "--stage", "encode"]
    assert main(line) == 1
    shown = capsys.readouterr()
    assert f"first divergence: encode: {CONV}" in shown.out
    assert "worst at" in shown.out
    assert f"error: onnxruntime fp32 differs from PyTorch first in encode: {CONV}" in shown.err
    assert main([*line, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["divergence"]["module"] == CONV
    assert told["divergence"]["statistics"]["max_abs"] > 1e-3
    assert main(["bisect", str(tiny_bundle("liif")), "--stage", "encode"]) == 0
    assert "no tensor is outside the tolerance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"backend": "abacus"}, UsageError, "unknown backend 'abacus'"),
        ({"backend": "torch"}, UsageError, "it is the reference"),
        ({"precision": "int8"}, UsageError, "quality that it loses"),
        ({"backend": "coreml"}, UsageError, "has no fp32 graphs of coreml"),
        ({"stages": ("attic",)}, UsageError, "no stage 'attic' in these graphs; known: encode"),
    ],
)
def test_what_cannot_be_searched(tiny_bundle, options, error, words):
    with pytest.raises(error, match=words):
        bisect(tiny_bundle("liif"), BisectOptions(**{"backend": "onnxruntime", **options}))


def test_a_kept_trace_is_of_the_same_structure():
    # What IGConv renders with prints alike at every width: a wider network is not to get its trace.
    for width in (8, 12):
        encoder = {"name": "edsr", "width": width, "blocks": 1}
        upsampler = {"name": "igconv", "scales": [2], "latent": 4, "hidden_layers": 1}
        network = build_network({"encoder": encoder, "upsampler": upsampler}).eval()
        stage = network.deploy(torch.float32).render
        program = kept("onnx", stage)
        feature = next(node for node in program.graph.nodes if node.name == "feature")
        assert feature.meta["val"].shape[1] == width
        assert kept("openvino", stage) is program


def test_a_checkpoint_of_another_network(tiny_bundle, tiny_checkpoint):
    with pytest.raises(ArtifactError, match="not this bundle's"):
        bisect(
            tiny_bundle("igconv"),
            BisectOptions("onnxruntime", stages=("prepare",), checkpoint=tiny_checkpoint("liif")),
        )


def test_manifest_is_left_alone(tiny_bundle):
    before = read_manifest(tiny_bundle("liif"))
    bisect(tiny_bundle("liif"), BisectOptions("onnxruntime", stages=("encode",)))
    assert read_manifest(tiny_bundle("liif")) == before
