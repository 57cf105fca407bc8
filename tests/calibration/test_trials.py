"""Trials of int8 plans: each has graphs in files of its own, which no later trial changes."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scaleport.bundle.manifest import Graph
from scaleport.calibration.trial import TrialSource, Workbench
from scaleport.errors import ArtifactError, UsageError
from scaleport.runtimes.base import host
from scaleport.runtimes.registry import get_backend
from scaleport.tensor import TensorSpec

SHAPE = ("N", 3, "H", "W")
IMAGE = np.full((1, 3, 4, 5), 0.5, np.float32)
LAYER = ("encode", "conv")
MANIFEST: Any = SimpleNamespace(name="m")


def entry(stage: str) -> Graph:
    return Graph(
        path="in/memory",
        stage=stage,
        precision="int8",
        inputs=(TensorSpec(name="image", dtype="float32", shape=SHAPE),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=SHAPE),),
    )


def times(factor: float) -> onnx.ModelProto:
    """``out = factor * image``, with a weight large enough to be mapped from the file."""
    weight = numpy_helper.from_array(np.full((1, 3, 1, 1), factor, np.float32), "factor")
    ballast = numpy_helper.from_array(np.zeros((1, 3, 512, 1), np.float32), "ballast")
    nodes = [
        helper.make_node("ReduceSum", ["ballast"], ["nothing"], keepdims=1),
        helper.make_node("Mul", ["image", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "nothing"], ["out"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(SHAPE))
        for name in ("image", "out")
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight, ballast])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def bench(tmp_path: Path) -> tuple[Workbench, list[tuple[str, frozenset[Any]]]]:
    """A model of two stages: 2 times the image in float, 3 times where the layer is int8."""
    built: list[tuple[str, frozenset[Any]]] = []

    def build(stage: str, quantised: frozenset[Any]) -> onnx.ModelProto:
        built.append((stage, quantised))
        return times(3.0 if quantised else 2.0)

    entries = {stage: entry(stage) for stage in ("encode", "render")}
    return Workbench(MANIFEST, entries, build, tmp_path, threads=1), built


def made(stages: Any, stage: str) -> float:
    return float(host(stages.session(stage).run({"image": IMAGE})["out"]).max())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_later_trial_leaves_the_graphs_of_an_earlier_one_alone(bench, tmp_path, backend) -> None:
    workbench, _ = bench
    plain = workbench.trial(backend=backend)
    assert made(plain, "encode") == 1.0
    first = workbench.trial(frozenset([LAYER]), backend)
    assert made(first, "encode") == 1.5
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = workbench.trial(frozenset([LAYER]), backend)
    assert made(second, "encode") == 1.5
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert (made(plain, "encode"), made(first, "encode")) == (1.0, 1.5)


def test_stages_without_int8_are_made_once_for_all_trials(bench) -> None:
    workbench, built = bench
    plain = workbench.trial()
    trials = [workbench.trial(frozenset([LAYER])) for _ in range(3)]
    assert [made(trial, "render") for trial in trials] == [1.0] * 3
    assert [stage for stage, _ in built] == ["render"]
    assert all(trial.session("render") is plain.session("render") for trial in trials)
    assert made(trials[0], "encode") == 1.5
    assert built[-1] == ("encode", frozenset([LAYER]))


def test_files_go_away_with_their_trial(bench, tmp_path) -> None:
    workbench, _ = bench
    workbench.trial()
    trial = workbench.trial(frozenset([LAYER]))
    assert made(trial, "encode") == 1.5
    assert list(tmp_path.rglob("encode.onnx"))
    del trial
    gc.collect()
    assert not list(tmp_path.rglob("encode.onnx"))


def test_what_a_trial_does_not_have(tmp_path) -> None:
    source = TrialSource(MANIFEST, {"encode": entry("encode")}, lambda _: times(2.0), tmp_path)
    with pytest.raises(UsageError, match="no stage 'whole'"):
        source.file(get_backend("onnxruntime"), "whole", "int8")
    with pytest.raises(UsageError, match="cannot be written as coreml"):
        source.file(get_backend("coreml"), "encode", "int8")
    with pytest.raises(ArtifactError, match="m is not written yet"):
        source.checkpoint()
