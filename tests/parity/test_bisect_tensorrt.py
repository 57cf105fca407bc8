"""Bisecting on TensorRT: engines are built for real; without a GPU ONNX Runtime runs the graphs."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from bisect_helpers import rehash, traced_once

from scaleport.bundle.reader import open_bundle
from scaleport.cli.main import main
from scaleport.errors import BackendError, ExportError
from scaleport.runtimes import onnxruntime_inside
from scaleport.runtimes.base import Availability
from scaleport.runtimes.engine_record import read_record
from scaleport.runtimes.registry import get_backend
from scaleport.runtimes.tensorrt_inside import build_marked
from scaleport.validation.bisection.bisect import bisect
from scaleport.validation.bisection.options import BisectOptions

__all__ = ["traced_once"]

LENGTHS = {"N": 1, "H": 15, "W": 21, "S": 3, "Ho": 41, "Wo": 57}


@pytest.fixture
def gpu(monkeypatch):
    """Function that says whether there is a GPU, whatever there is."""

    def set_to(found):
        monkeypatch.setattr(get_backend("tensorrt"), "availability", lambda: found)

    return set_to


def feeds_of(graph):
    """Zeros of fitting shapes for a graph, and the size that they come to."""
    feeds = {}
    for port in graph.inputs:
        shape = [LENGTHS.get(d, d) for d in port.shape]
        feeds[port.name] = np.zeros(shape, port.dtype)
        if port.name == "size":
            feeds[port.name][:] = LENGTHS["Ho"], LENGTHS["Wo"]
    return feeds


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_every_tensor_is_an_output_of_the_engine(tiny_bundle, tmp_path, name, precision):
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")
    bundle = open_bundle(tiny_bundle(name))
    graphs = [g for g in bundle.graphs("onnx", None, precision) if g.stage != "whole"]
    assert "whole_size" in {graph.stage for graph in graphs}
    for graph in graphs:
        target = tmp_path / f"{graph.stage}.engine"
        model = build_marked(bundle.file(graph.path), feeds_of(graph), target)
        record = read_record(target)
        assert target.stat().st_size == record.bytes
        made = {name for node in model.graph.node for name in node.output}
        assert {tensor.name for tensor in record.outputs} >= made
        as_it_is = onnx.load(bundle.file(graph.path)).graph.node
        assert len(made) == sum(len(node.output) for node in as_it_is)
        shape = record.profile["image" if "image" in record.profile else graph.inputs[0].name]
        assert shape.min == shape.max


def test_what_tensorrt_refuses_is_named(tiny_bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")
    bundle = open_bundle(tiny_bundle("liif"))
    graph = bundle.graph("onnx", "whole", "fp32")
    with pytest.raises(ExportError, match=r"does not accept node .* of whole\.onnx"):
        build_marked(bundle.file(graph.path), feeds_of(graph), tmp_path / "x.engine")


@pytest.mark.parametrize("name", ["liif", pytest.param("igconv", marks=pytest.mark.slow)])
def test_search_through_what_tensorrt_is_given(tiny_bundle, tmp_path, gpu, monkeypatch, name):
    """The graphs that TensorRT takes, whole ones by size, run by ONNX Runtime in its place."""
    gpu(Availability(True, "", "", "a stand-in", ""))
    monkeypatch.setattr(get_backend("tensorrt"), "inner", onnxruntime_inside.inner)
    clean = bisect(tiny_bundle(name), BisectOptions("tensorrt", scale=2.7))
    assert clean.divergence is None
    assert clean.compared[-1].stage == "whole_size"
    assert clean.compared[-1].matched >= 0.7 * clean.compared[-1].tensors
    # There are no engines in the bundle to compare with, and that is said.
    assert all("was not run" in note for note in clean.notes)
    assert len(clean.notes) == len(clean.compared)

    shutil.copytree(tiny_bundle(name), tmp_path / "bad.bundle")
    graph = open_bundle(tmp_path / "bad.bundle").graph("onnx", "whole_size", "fp32")
    path = tmp_path / "bad.bundle" / graph.path
    model = onnx.load(path)
    next(n for n in model.graph.node if n.name == "front/y_2N").op_type = "Add"
    onnx.save(model, path)
    bad = rehash(tmp_path / "bad.bundle")
    found = bisect(bad, BisectOptions("tensorrt", stages=("whole_size",), scale=2.7))
    assert found.divergence is not None
    assert found.divergence.tensor == "front/y_2N"


def test_without_a_gpu_one_line_says_so(tiny_bundle, gpu, capsys):
    gpu(Availability(False, "There is no usable NVIDIA GPU"))
    with pytest.raises(BackendError, match="cannot run here: There is no usable NVIDIA GPU"):
        bisect(tiny_bundle("liif"), BisectOptions("tensorrt"))
    assert main(["bisect", str(tiny_bundle("liif")), "--backend", "tensorrt"]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line == "error: backend 'tensorrt' cannot run here: There is no usable NVIDIA GPU"
