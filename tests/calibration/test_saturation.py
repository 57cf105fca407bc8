"""Sums of products are exact on every processor, also where two products are added in 16 bits.

All activations are at the top of their range and all weights at theirs: on processors with AVX2 or
AVX-512 but without VNNI weights up to 127 would lose half of these sums. Everything here is 1 or
-1, so what is right is a sum of signs.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scaleport.calibration.flatten import flatten_linears
from scaleport.calibration.layers import find_layers
from scaleport.calibration.placement import WEIGHT_LIMIT, borders, place, quantise_weight
from scaleport.export.onnx import save
from scaleport.export.write_openvino import convert
from scaleport.runtimes.base import GraphFile, SessionOptions
from scaleport.runtimes.registry import get_backend

CHANNELS = 32
CONVOLUTIONS = [
    helper.make_node("Conv", ["image", "w3x3", "bias"], ["wide"]),
    helper.make_node("Relu", ["wide"], ["active"]),
    helper.make_node("Conv", ["active", "w1x1"], ["narrow"]),
    helper.make_node("Neg", ["narrow"], ["out"]),
]
LINEARS = [
    helper.make_node("MatMul", ["image", "w1"], ["product"]),
    helper.make_node("Add", ["product", "bias"], ["wide"]),
    helper.make_node("Relu", ["wide"], ["active"]),
    helper.make_node("MatMul", ["active", "w2"], ["second"]),
    helper.make_node("Add", ["second", "bias"], ["sum"]),
    helper.make_node("Neg", ["sum"], ["out"]),
]
PRODUCT = [helper.make_node("MatMul", ["image", "w2"], ["out"])]


def signs() -> np.ndarray:
    """[outputs, inputs]: alike, alike in pairs and in fours, alternating, and at random."""
    place_ = np.arange(CHANNELS)
    rows = [np.ones(CHANNELS), -np.ones(CHANNELS)]
    rows += [np.where(place_ // run % 2, -1, 1) for run in (1, 2, 4, 8)]
    rest = np.random.default_rng(0).choice([-1, 1], (CHANNELS - len(rows), CHANNELS))
    return np.concatenate([rows, rest]).astype(np.float32)


def planted(nodes, shape) -> onnx.ModelProto:
    ones, second = np.ones((CHANNELS, CHANNELS), np.float32), signs()
    constants = {
        "w3x3": np.ones((CHANNELS, CHANNELS, 3, 3), np.float32),
        "w1x1": second[:, :, None, None],
        "w1": ones,
        "w2": np.ascontiguousarray(second.T),
        "bias": np.zeros(CHANNELS, np.float32),
    }
    read = {name for node in nodes for name in node.input}
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        "planted",
        [info("image", TensorProto.FLOAT, shape)],
        [info("out", TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(v, n) for n, v in constants.items() if n in read],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return flatten_linears(model)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("low", [0.0, -1.0], ids=["after-relu", "with-zero-point"])
@pytest.mark.parametrize(
    ("nodes", "image", "first", "sign"),
    [
        (CONVOLUTIONS, np.ones((1, CHANNELS, 9, 8), np.float32), 9 * CHANNELS, -1),
        (LINEARS, np.ones((1, 6, 5, CHANNELS), np.float32), CHANNELS, -1),
        (PRODUCT, np.ones((1, 6, 5, CHANNELS), np.float32), 1, 1),
    ],
    ids=["convolutions", "linears", "product"],
)
def test_the_largest_sums_are_exact(nodes, image, first, sign, low, backend, tmp_path):
    """``first``: what every channel of the first layer sums up to."""
    shape = ["N", CHANNELS, "H", "W"] if nodes is CONVOLUTIONS else ["N", "H", "W", CHANNELS]
    model = planted(nodes, shape)
    layers = find_layers(model, "encode")
    tensors = borders(model, layers).tensors
    most = float(first * CHANNELS)
    reach = {"image": (low, 1.0), "narrow": (-most, most)}
    ranges = {t: next((r for n, r in reach.items() if n in t), (0.0, first)) for t in tensors}
    path = tmp_path / ("graph.xml" if backend == "openvino" else "graph.onnx")
    (convert if backend == "openvino" else save)(place(model, layers, ranges), path)
    file = GraphFile(path, "encode", "int8", ("image",), ("out",))
    found = get_backend(backend).load(file, SessionOptions(threads=1)).run({"image": image})["out"]
    expected = sign * first * signs().sum(axis=1)
    found = np.moveaxis(found, 1, -1) if nodes is CONVOLUTIONS else found
    # Steps of the two tensors that may be rounded; a saturated sum is off by a third of ``most``.
    slack = 2 * most / 255 + first / 255
    assert np.abs(found - expected).max() <= slack


def test_no_weight_is_larger_than_two_products_in_16_bits_allow():
    assert np.iinfo(np.int16).max >= 2 * 255 * WEIGHT_LIMIT
    values = np.random.default_rng(1).normal(size=(8, 16, 3, 3)).astype(np.float32)
    for axis in (0, 1):
        small, _ = quantise_weight(values, axis)
        others = tuple(i for i in range(4) if i != axis)
        assert (np.abs(small).max(axis=others) == WEIGHT_LIMIT).all()
