"""Where the tracer reads a length from does not show in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")

from scaleport.export.lengths import read_lengths_once  # noqa: E402
from scaleport.models.base import Port  # noqa: E402

PORTS = [Port("image", ("N", 3, "H", "W")), Port("skip", ("N", 8, "H", "W"))]


def graph(reads: list[tuple[str, int]], batch: str) -> onnx.ModelProto:
    """Two lengths, read from the given inputs, and the batch: an output of [N, H * W]."""
    nodes = []
    for number, (source, axis) in enumerate(reads):
        shape = f"val_{number}"
        nodes.append(helper.make_node("Shape", [source], [shape], start=axis, end=axis + 1))
        nodes.append(helper.make_node("Squeeze", [shape], [f"sym_{number}"]))
    height = next(n for n, (_, axis) in enumerate(reads) if axis == 2)
    width = next(n for n, (_, axis) in enumerate(reads) if axis == 3)
    nodes += [
        helper.make_node("Shape", [batch], ["n"], start=0, end=1),
        helper.make_node("Mul", [f"sym_{height}", f"sym_{width}"], ["pixels"]),
        helper.make_node("Reshape", ["pixels", "one"], ["row"]),
        helper.make_node("Concat", ["n", "row"], ["out"], axis=0),
    ]
    info = helper.make_tensor_value_info
    inputs = [info(p.name, TensorProto.FLOAT, list(p.shape)) for p in PORTS]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    body = helper.make_graph(nodes, "g", inputs, [info("out", TensorProto.INT64, [2])], [one])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_sources_and_order_do_not_matter():
    onnxruntime = pytest.importorskip("onnxruntime")
    ways = [
        graph([("image", 2), ("skip", 3)], "skip"),
        graph([("skip", 3), ("skip", 2)], "image"),
        graph([("image", 3), ("image", 2)], "image"),
    ]
    for way in ways:
        read_lengths_once(way, PORTS)
    assert [n.output[0] for n in ways[0].graph.node] == [
        *("N/shape", "H/shape", "H/length", "W/shape", "W/length", "pixels", "row", "out")
    ]
    texts = [set(map(str, way.graph.node)) for way in ways]
    assert texts[1] == texts[2]
    feeds = {
        "image": np.zeros((2, 3, 5, 7), np.float32),
        "skip": np.zeros((2, 8, 5, 7), np.float32),
    }
    for way in ways:
        onnx.checker.check_model(way, full_check=True)
        session = onnxruntime.InferenceSession(
            way.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        assert session.run(None, feeds)[0].tolist() == [2, 35]


def test_lengths_of_other_tensors_and_outputs_stay():
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Relu", ["image"], ["inner"]),
        helper.make_node("Shape", ["inner"], ["inner_n"], start=0, end=1),
        helper.make_node("Shape", ["image"], ["colours"], start=1, end=2),
        helper.make_node("Shape", ["image"], ["all"]),
        helper.make_node("Shape", ["image"], ["height"], start=2, end=3),
    ]
    names = ["inner_n", "colours", "all", "height"]
    body = helper.make_graph(
        nodes,
        "g",
        [info("image", TensorProto.FLOAT, list(PORTS[0].shape))],
        [info(n, TensorProto.INT64, None) for n in names],
    )
    model = helper.make_model(body)
    before = [str(node) for node in model.graph.node]
    read_lengths_once(model, PORTS[:1])
    assert [str(node) for node in model.graph.node] == before
