"""What processors are known to take, and what is said of a bundle for them."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest

from scaleport.bundle.reader import open_bundle
from scaleport.cli.main import main
from scaleport.errors import UsageError
from scaleport.export.onnx import OPSET
from scaleport.validation.targets import (
    DYNAMIC,
    TargetRow,
    find_target,
    judge_target,
    targets,
)


def test_every_list_says_where_it_comes_from() -> None:
    known = targets()
    assert set(known) == {"npu", "qnn", "directml", "ane", "webgpu", "trt"}
    for target in known.values():
        assert target.sources
        assert all(source.startswith("https://") for source in target.sources)
        assert target.basis
        # A list that is everything has the plainest operation of all networks in it.
        assert not target.complete or {"Conv", "Convolution"} & target.operations


def test_operators_are_those_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    for name in ("qnn", "directml", "webgpu", "trt"):
        assert find_target(name).operations <= known


def test_kernels_of_directml_are_those_of_the_opset_of_our_graphs(tiny_bundle: Any) -> None:
    target = find_target("directml")
    assert f"opset {OPSET}" in target.basis
    # Listed for opset 16 and for 9 and 21: no kernel fits the versions of opset 20.
    assert not {"GridSample", "ConstantOfShape"} & target.operations
    for name in target.operations:
        assert not onnx.defs.get_schema(name, OPSET).deprecated
    bundle = open_bundle(tiny_bundle("liif"))
    for report in judge_target(bundle, target):
        assert DYNAMIC not in report.refused
        assert {"Conv", "Gather", "MatMul"} <= {r.operation for r in report.rows}


def test_graphs_of_any_shape_are_not_for_a_target_of_fixed_shapes(tiny_bundle: Any) -> None:
    bundle = open_bundle(tiny_bundle("liif"))
    for name in ("qnn", "npu"):
        for report in judge_target(bundle, find_target(name)):
            assert report.rows[0].operation == DYNAMIC
            assert DYNAMIC in report.refused
    assert all(DYNAMIC not in r.refused for r in judge_target(bundle, find_target("trt")))


def test_operations_are_counted_in_every_precision(tiny_bundle: Any) -> None:
    bundle = open_bundle(tiny_bundle("igconv"))
    reports = judge_target(bundle, find_target("webgpu"))
    assert [report.precision for report in reports] == ["fp32", "fp16"]
    graphs = bundle.graphs("onnx", None, "fp32")
    models = [onnx.load(bundle.file(graph.path)) for graph in graphs]
    convolutions = sum(node.op_type == "Conv" for m in models for node in m.graph.node)
    assert TargetRow("Conv", convolutions, "supported") in reports[0].rows
    # Its list has no operation for the larger of two integers.
    assert "Max" in reports[0].refused


def test_what_a_maker_does_not_list_is_unknown_where_the_list_is_not_all(tiny_bundle: Any) -> None:
    target = find_target("ane")
    assert not target.complete
    with pytest.raises(UsageError, match="--format coreml"):
        judge_target(open_bundle(tiny_bundle("igconv")), target)


def test_command_line(tiny_bundle: Any, capsys: Any) -> None:
    bundle = str(tiny_bundle("igconv"))
    assert main(["doctor", bundle, "--target", "qnn"]) == 1
    shown = capsys.readouterr()
    assert "NOT supported" in shown.out
    assert "export with --static" in shown.out
    assert "source: https://github.com/onnxruntime/onnxruntime-qnn" in shown.out
    assert DYNAMIC in shown.err
    assert main(["doctor", "--model", bundle, "--target", "webgpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["target"]["name"] == "webgpu"
    rows = {row["operation"]: row for row in found["reports"][0]["operations"]}
    assert rows["Conv"]["verdict"] == "supported"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "qnn"], "needs a bundle"),
        (["--target", "qn"], "known: npu, qnn, directml, ane, webgpu, trt"),
    ],
)
def test_wrong_requests(capsys: Any, arguments: list[str], words: str) -> None:
    assert main(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err
