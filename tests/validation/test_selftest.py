"""The golden tile and the operations of graphs, as doctor tells them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from scaleport.bundle.reader import open_bundle
from scaleport.cli.main import main
from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import load_checkpoint
from scaleport.runtimes.base import host
from scaleport.runtimes.onnxruntime import OnnxRuntimeSession
from scaleport.runtimes.registry import get_backend
from scaleport.validation.operators import coverage_of
from scaleport.validation.selftest import (
    BUNDLE,
    EXPECTED,
    GOLDEN,
    SCALE,
    golden_image,
    has_tile,
    self_test,
)


def test_what_is_stored_is_what_pytorch_makes():
    bundle = open_bundle(GOLDEN / BUNDLE)
    bundle.verify()
    image = golden_image()
    grid = Grid.from_scale(image.shape[2], image.shape[3], SCALE)
    with torch.inference_mode():
        found = load_checkpoint(bundle.checkpoint())(torch.from_numpy(image), grid).numpy()
    np.testing.assert_allclose(found, np.load(GOLDEN / EXPECTED), atol=1e-5)
    assert found.std() > 0.02  # an output that is flat would hide much


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino", "coreml"])
def test_every_backend_computes_it(backend):
    found = self_test(backend)
    assert found.passed, found
    assert found.device
    assert found.psnr > 100


def test_a_backend_that_computes_wrongly(monkeypatch, capsys):
    right = OnnxRuntimeSession.run

    def wrong(self, feeds, keep=()):
        return {n: host(v) * np.float32(1.001) for n, v in right(self, feeds, keep).items()}

    monkeypatch.setattr(OnnxRuntimeSession, "run", wrong)
    found = self_test("onnxruntime")
    assert not found.passed
    assert "max abs" in found.note
    assert main(["doctor", "--backend", "onnxruntime"]) == 1
    shown = capsys.readouterr()
    assert "WRONG" in shown.out
    assert "error: onnxruntime computes the golden tile wrongly: max abs" in shown.err


def test_a_backend_that_fails(monkeypatch):
    right = OnnxRuntimeSession.run

    def broken(self, feeds, keep=()):
        return {n: host(v) * np.float32(np.nan) for n, v in right(self, feeds, keep).items()}

    monkeypatch.setattr(OnnxRuntimeSession, "run", broken)
    found = self_test("onnxruntime")
    assert (found.passed, found.max_abs) == (False, None)
    assert "NaN" in found.note


def test_there_is_no_tile_for_engines():
    assert has_tile(get_backend("onnxruntime"))
    assert has_tile(get_backend("torch"))
    assert not has_tile(get_backend("tensorrt"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "coreml"])
def test_operations_are_counted_by_what_runs_them(backend):
    stages = {c.stage: c for c in coverage_of(open_bundle(GOLDEN / BUNDLE), backend, "fp32")}
    assert set(stages) == {"encode", "render"}
    for item in stages.values():
        assert not item.note
        assert not item.unsupported
        assert sum(item.places.values()) == item.operations >= item.kinds > 1


def test_tensorrt_parses_without_a_gpu():
    pytest.importorskip("tensorrt_rtx")
    for item in coverage_of(open_bundle(GOLDEN / BUNDLE), "tensorrt", "fp32"):
        assert item.operations > 10
        assert "parsed and not run" in next(iter(item.places))


def test_an_operation_that_is_not_known_is_named(tiny_bundle, tmp_path, monkeypatch):
    bundle = open_bundle(tiny_bundle("liif"))
    model = onnx.load(bundle.file("onnx/fp32/encode.onnx"))
    model.graph.node[0].op_type = "Telepathy"
    onnx.save(model, tmp_path / "bad.onnx")
    monkeypatch.setattr(bundle, "file", lambda _: tmp_path / "bad.onnx")
    for item in coverage_of(bundle, "onnxruntime", "fp32"):
        assert "Telepathy" in item.note
    with pytest.raises(UsageError, match="does not tell which operations"):
        coverage_of(bundle, "torch", "fp32")


def test_doctor_tells_all_of_it(tiny_bundle, capsys):
    line = ["doctor", str(tiny_bundle("liif")), "--backend", "onnxruntime"]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (tile,) = told["golden_tile"]
    assert tile["passed"]
    assert tile["device"] == "CPUExecutionProvider"
    stages = {(c["precision"], c["stage"]) for c in told["operations"]["onnxruntime"]}
    assert stages == {(p, s) for p in ("fp32", "fp16") for s in ("encode", "render")}
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert "CPUExecutionProvider" in shown
    assert "operations of" in shown
    assert main([*line, "-v"]) == 0
    assert "kinds" in capsys.readouterr().out
