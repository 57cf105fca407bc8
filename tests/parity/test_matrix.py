"""The parity grid: every backend, precision, shape, scale and way of running, inside its gate."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.cli.main import main
from scaleport.grid import Grid, output_length
from scaleport.models import load_checkpoint
from scaleport.validation.parity.cases import REFUSED, SCALES, split_scales
from scaleport.validation.parity.gates import Gates, passed
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate
from scaleport.validation.pictures import picture
from scaleport.validation.report.summary import describe, failures

BACKENDS = ("torch", "onnxruntime", "openvino", "coreml")
MODELS = ("liif", "igconv")


def told(parity) -> str:
    return "\n".join(describe(result) for result in failures(parity)[:20])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_case_is_inside_its_gate(full_grid, name, backend):
    results = [r for r in full_grid(name).results if r.backend == backend]
    measured = [r for r in results if r.max_abs is not None]
    assert {r.precision for r in measured} == {"fp32", "fp16"}
    assert [describe(r) for r in results if not r.passed] == []
    for result in measured:
        gate = Gates().of(result.precision)
        assert result.max_abs <= gate.max_abs
        assert (result.psnr is None and result.max_abs == 0) or result.psnr >= gate.psnr


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_shape_scale_and_way_of_running_is_there(full_grid, every_format, name, backend):
    results = [r for r in full_grid(name).results if r.backend == backend]
    inside, _ = split_scales(read_manifest(every_format(name)))
    modes = {"staged", "tiled"} | ({"whole"} if backend in ("onnxruntime", "openvino") else set())
    for precision in ("fp32", "fp16"):
        mine = [r for r in results if r.precision == precision and r.max_abs is not None]
        assert {r.mode for r in mine} == modes
        for mode in modes - {"tiled"}:
            assert {r.scale for r in mine if r.mode == mode} == set(inside)
            assert len({r.shape_name for r in mine if r.mode == mode}) == 7


def test_scales_beyond_the_range_are_refused_on_every_backend(full_grid):
    refused = [r for r in full_grid("igconv").results if r.note == REFUSED]
    assert {r.backend for r in refused} == set(BACKENDS)
    assert (8.0, 8.0) in {r.scale for r in refused}
    assert (8.0, 8.0) in SCALES


def test_results_say_what_ran(full_grid):
    parity = full_grid("liif")
    assert "not Core ML" in parity.device["coreml"] or "macOS" in parity.device["coreml"]
    assert set(BACKENDS) <= set(parity.tool_versions)


def plain_session(bundle, precision):
    """Nothing of ours runs the graph."""
    path = open_bundle(bundle).path / "onnx" / precision / "whole.onnx"
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


# 15 * 1.1, 15 * 1.3, 25 * 2.3 and 35 * 2.7 end in .5, which no binary float says exactly.
TIES = [(15, 25, 1.1), (15, 21, 1.3), (25, 15, 2.3), (35, 5, 2.7), (45, 9, 3.3), (15, 5, 3.9)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_whole_graph_alone_in_onnxruntime(tiny_bundle, tiny_checkpoint, name, precision):
    session = plain_session(tiny_bundle(name), precision)
    assert [i.name for i in session.get_inputs()] == ["image", "scale"]
    network = load_checkpoint(tiny_checkpoint(name))
    gate = Gates().of(precision)
    for height, width, scale in [*TIES, (9, 14, (2.0, 3.5)), (6, 7, 1.0), (11, 8, 4.0)]:
        image = picture(height, width)
        pair = scale if isinstance(scale, tuple) else (scale, scale)
        (found,) = session.run(None, {"image": image, "scale": np.array(pair, np.float32)})
        assert found.shape[2:] == (output_length(height, pair[0]), output_length(width, pair[1]))
        with torch.inference_mode():
            grid = Grid.from_scale(height, width, pair)
            expected = network(torch.from_numpy(image), grid).numpy()
        error = np.abs(found.astype(np.float64) - expected)
        ratio = -10 * np.log10(max(float((error**2).mean()), 1e-30))
        assert gate.failure(float(error.max()), ratio) == "", (height, width, scale)


def planted(source, target, stage):
    """A copy of a bundle with one weight of one graph changed, and its hash made to fit."""
    shutil.copytree(source, target)
    relpath = f"onnx/fp32/{stage}.onnx"
    path = target / relpath
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda i: int(np.prod(i.dims)))
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[weights.size // 2] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, path)
    manifest = json.loads((target / "manifest.json").read_text())
    entry = sha256_file(path)
    manifest["files"][relpath] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def test_one_changed_weight_is_found(tiny_bundle, tmp_path):
    bundle = planted(tiny_bundle("liif"), tmp_path / "bad.bundle", "encode")
    parity = validate(bundle, ValidationOptions(selection="quick"))
    assert not passed(parity)
    failed = failures(parity)
    assert {(r.backend, r.precision) for r in failed} == {("onnxruntime", "fp32")}
    # The whole graph has weights of its own, and they are right.
    assert {r.mode for r in failed} == {"staged", "tiled"}
    assert "onnxruntime fp32 staged odd 15x21 x1.3: max abs" in told(parity)


def test_command_line_fails_and_names_the_case(tiny_bundle, tmp_path, capsys):
    bundle = planted(tiny_bundle("igconv"), tmp_path / "bad.bundle", "whole")
    asked = ["--quick", "--backend", "onnxruntime", "--precision", "fp32"]
    code = main(["validate", str(bundle), *asked])
    shown = capsys.readouterr()
    assert code == 1
    assert "failed: onnxruntime fp32 whole" in shown.out
    assert "outside the gates" in shown.err
    assert not passed(read_manifest(bundle).parity)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["liif-small", "igconv-small"])
def test_shipped_weights(shipped_bundle, name):
    parity = validate(shipped_bundle(name))
    assert passed(parity), told(parity)
    assert {r.backend for r in parity.results} >= set(BACKENDS)
