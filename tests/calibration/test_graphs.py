"""Where quantise and dequantise nodes go, and what the rewritten graphs compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from calibration_samples import quantised_outputs
from onnx import TensorProto, helper, numpy_helper

from scaleport.calibration.flatten import flatten_linears
from scaleport.calibration.layers import find_layers, float32_modules
from scaleport.calibration.placement import (
    borders,
    place,
    quantise_weight,
    unsigned_scale,
)
from scaleport.calibration.ranges import METHODS, least_squares_range, observe
from scaleport.errors import ExportError, UsageError
from scaleport.export.qdq import symmetric
from scaleport.models.base import Stage
from scaleport.tensor import TensorSpec

RNG = np.random.default_rng(3)


def graph(nodes, inputs, outputs, constants) -> onnx.ModelProto:
    made = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        "test",
        [info(n, t, s) for n, (t, s) in inputs.items()],
        [info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        made,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def random(*shape) -> np.ndarray:
    return RNG.normal(0, 0.3, shape).astype(np.float32)


def conv_model() -> onnx.ModelProto:
    """conv, ReLU, conv, plus the input: a residual block."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["one"], pads=[1] * 4),
        node("Relu", ["one"], ["active"]),
        node("Conv", ["active", "w2", "b2"], ["two"], pads=[1] * 4),
        node("Add", ["two", "image"], ["sum"]),
        node("Conv", ["sum", "w3"], ["three"], pads=[1] * 4),
        node("Softmax", ["three"], ["out"], axis=1),
    ]
    for item, module in zip(nodes, ["a", "", "b", "", "c", ""], strict=True):
        if module:
            item.metadata_props.add(key="module", value=module)
    constants = {"w1": random(8, 4, 3, 3), "b1": random(8), "w2": random(4, 8, 3, 3)}
    constants |= {"b2": random(4), "w3": random(4, 4, 3, 3)}
    shape = ["N", 4, "H", "W"]
    return graph(nodes, {"image": (TensorProto.FLOAT, shape)}, {"out": shape}, constants)


def linear_model() -> onnx.ModelProto:
    """Two linear layers on a map, one on coordinates, and a product of two activations."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["feature", "w1"], ["p1"]),
        node("Add", ["p1", "b1"], ["s1"]),
        node("Relu", ["s1"], ["r1"]),
        node("MatMul", ["r1", "w2"], ["p2"]),
        node("Add", ["b2", "p2"], ["s2"]),
        node("MatMul", ["row_offset", "w3"], ["place"]),
        node("Add", ["s2", "place"], ["moved"]),
        node("Transpose", ["moved"], ["turned"], perm=[0, 1, 3, 2]),
        node("MatMul", ["moved", "turned"], ["out"]),
    ]
    constants = {"w1": random(6, 8), "b1": random(8), "w2": random(8, 5), "b2": random(5)}
    constants |= {"w3": random(1, 5)}
    float32 = TensorProto.FLOAT
    inputs = {"feature": (float32, ["N", "H", "W", 6]), "row_offset": (float32, ["W", 1])}
    return graph(nodes, inputs, {"out": ["N", "H", "W", "V"]}, constants)


def run(model, feeds, *outputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(outputs) or None, feeds)


def image_feeds(count: int = 2):
    rng = np.random.default_rng(1)
    return [{"image": rng.random((1, 4, 9, 7), dtype=np.float32)} for _ in range(count)]


def linear_feeds():
    rng = np.random.default_rng(2)
    return {
        "feature": rng.normal(size=(2, 3, 5, 6)).astype(np.float32),
        "row_offset": rng.random((5, 1), dtype=np.float32),
    }


def test_flattened_linears_compute_the_same_with_gemm():
    model, feeds = linear_model(), linear_feeds()
    flat = flatten_linears(model)
    onnx.checker.check_model(flat, full_check=True)
    np.testing.assert_allclose(run(model, feeds)[0], run(flat, feeds)[0], rtol=1e-5, atol=1e-5)
    kinds = [node.op_type for node in flat.graph.node]
    assert kinds.count("Gemm") == 2
    # One reshape into the run of layers and one out of it.
    assert kinds.count("Reshape") == 2
    # The product without a sum, and the one of two activations, stay as they are.
    assert kinds.count("MatMul") == 2


def test_a_tensor_that_others_read_keeps_its_shape():
    model = linear_model()
    model.graph.node[-1].input[0] = "moved"
    model.graph.output.append(helper.make_empty_tensor_value_info("r1"))
    flat = flatten_linears(model)
    feeds = linear_feeds()
    assert run(flat, feeds, "r1")[0].shape == (2, 3, 5, 8)
    np.testing.assert_allclose(run(model, feeds, "r1")[0], run(flat, feeds, "r1")[0], atol=1e-6)


def test_graph_without_linears_is_left_alone():
    model = conv_model()
    assert flatten_linears(model) == model


def test_layers_are_products_with_a_constant():
    found = find_layers(flatten_linears(linear_model()), "render")
    assert [(layer.name, layer.fixed) for layer in found] == [
        ("w1", ""),
        ("w2", ""),
        ("w3", "grid arithmetic"),
    ]
    named = find_layers(conv_model(), "encode", declared={"b"})
    assert [layer.name for layer in named] == ["a", "b", "c"]
    assert "in float32 in every precision" in named[1].fixed


class HalfWide(torch.nn.Module):
    """One product in float16, one in float32."""

    def __init__(self):
        super().__init__()
        self.narrow = torch.nn.Conv2d(3, 4, 1).half()
        self.wide = torch.nn.Conv2d(4, 3, 1)

    def forward(self, image):
        return self.wide(self.narrow(image.half()).float())


def test_what_a_float16_build_keeps_in_float32_is_declared():
    port = TensorSpec("image", "float32", ("N", 3, "H", "W"))
    assert float32_modules(Stage("encode", HalfWide(), (port,), (port,))) == {"wide"}


def quantised(model, chosen=None, method="minmax"):
    layers = find_layers(model, "encode")
    ranges = observe(model, borders(model, layers).tensors, image_feeds, method)
    used = [layer for layer in layers if chosen is None or layer.name in chosen]
    return place(model, used, ranges)


def test_pairs_are_around_products_and_nowhere_else():
    model = conv_model()
    edge = borders(model, find_layers(model, "encode"))
    assert edge.read == {"image", "active", "sum"}
    # After the ReLU, not before it; "three" feeds a softmax and is the last product's result.
    assert edge.made == {"active", "two", "three"}
    made = quantised(model)
    onnx.checker.check_model(made, full_check=True)
    readers = {name: n.op_type for n in made.graph.node for name in n.input}
    # The sum reads the image as it is, and nothing quantises the softmax's output.
    add = next(n for n in made.graph.node if n.op_type == "Add")
    assert list(add.input) == ["two/int8", "image"]
    assert "out" not in readers
    assert sorted(quantised_outputs(made)) == ["one", "three", "two"]
    types = {i.name: i.data_type for i in made.graph.initializer}
    # Biases stay float32: TensorRT takes no int32 ones.
    assert types["b1"] == TensorProto.FLOAT
    assert TensorProto.INT32 not in types.values()
    assert types["w1/small"] == TensorProto.INT8
    assert types["image/zero"] == TensorProto.UINT8


def test_a_reshape_before_a_product_moves_rounded_values():
    flat = flatten_linears(linear_model())
    feeds, layers = linear_feeds(), find_layers(flat, "encode")
    ranges = observe(flat, borders(flat, layers).tensors, lambda: [feeds], "minmax")
    made = place(flat, layers, ranges)
    onnx.checker.check_model(made, full_check=True)
    by_output = {name: node for node in made.graph.node for name in node.output}
    gemm = next(node for node in made.graph.node if node.op_type == "Gemm")
    chain = []
    node = by_output[gemm.input[0]]
    while node is not None:
        chain.append(node.op_type)
        node = by_output.get(node.input[0])
    assert chain == ["Reshape", "DequantizeLinear", "QuantizeLinear"]
    expected, found = run(flat, feeds)[0], run(made, feeds)[0]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_reshape_that_others_read_stays_float():
    """A reshaped tensor that is also added somewhere must not be rounded for that."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["image", "shape"], ["flat"]),
        node("Gemm", ["flat", "w1"], ["product"]),
        node("Add", ["flat", "product"], ["out"]),
    ]
    constants = {"shape": np.array([-1, 6], np.int64), "w1": random(6, 6)}
    image = {"image": (TensorProto.FLOAT, ["N", 6, 1])}
    model = graph(nodes, image, {"out": ["M", 6]}, constants)
    layers = find_layers(model, "encode")
    ranges = dict.fromkeys(borders(model, layers).tensors, (-4.0, 4.0))
    made = place(model, layers, ranges)
    add = next(n for n in made.graph.node if n.op_type == "Add")
    assert list(add.input) == ["flat", "product"]
    reshape = next(n for n in made.graph.node if n.op_type == "Reshape")
    assert list(reshape.input) == ["image", "shape"]


def test_onnxruntime_makes_integer_convolutions_of_it(tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    made = quantised(conv_model())
    onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3
    assert "Conv" not in kinds and "Relu" not in kinds


@pytest.mark.parametrize("method", METHODS)
def test_int8_is_close_to_float(method):
    model = conv_model()
    feeds = image_feeds()[0]
    exact = run(model, feeds)[0]
    error = np.abs(run(quantised(model, method=method), feeds)[0] - exact).max()
    # Entropy cuts off what is rare; in an image network that is what matters.
    assert 0 < error < (0.5 if method == "entropy" else 0.05)
    one = np.abs(run(quantised(model, {"b"}, method), feeds)[0] - exact).max()
    assert 0 < one < error * 1.5


def test_no_layer_changes_nothing():
    model = conv_model()
    assert place(model, [], {}) == model


def test_symmetric_pairs_have_no_zero_points_and_the_same_range():
    made = quantised(conv_model())
    turned = symmetric(made)
    onnx.checker.check_model(turned, full_check=True)
    constants = {i.name: numpy_helper.to_array(i) for i in turned.graph.initializer}
    before = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    steps = [n.input[1:3] for n in turned.graph.node if n.op_type == "QuantizeLinear"]
    assert steps
    for step, zero in steps:
        assert constants[zero].dtype == np.int8 and constants[zero] == 0
        low, high = before[step] * (0 - int(before[zero])), before[step] * (255 - before[zero])
        assert constants[step] * 127 == pytest.approx(max(-low, high), rel=1e-6)
    feeds = image_feeds()[0]
    assert np.abs(run(turned, feeds)[0] - run(made, feeds)[0]).max() < 0.1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0)])
def test_zero_is_exact_and_the_range_is_covered(low, high):
    step, zero = unsigned_scale(low, high)
    assert 0 <= zero <= 255
    assert step * (0 - zero) <= min(low, 0) + step
    assert step * (255 - zero) >= max(high, 0) - step


def test_weights_are_symmetric_per_channel():
    values = np.array([[1.0, -2.0], [0.0, 0.5], [0.0, 0.0]], np.float32)
    small, step = quantise_weight(values, 0)
    assert small.dtype == np.int8 and small.min() >= -127
    np.testing.assert_allclose(small * step[:, None], values, atol=step.max() / 2)
    assert (small[2] == 0).all()


def test_nan_is_an_error_that_names_the_tensor():
    feeds = [{"image": np.full((1, 4, 5, 5), np.nan, np.float32)}]
    with pytest.raises(ExportError, match="'image' of graph 'test' holds NaN"):
        observe(conv_model(), ["image"], lambda: feeds)


def test_unknown_method():
    with pytest.raises(UsageError, match="unknown range method"):
        observe(conv_model(), ["image"], image_feeds, "guess")


def test_least_squares_cuts_a_lone_outlier_off():
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [40.0]])
    counts, edges = np.histogram(values, 4096, range=(-40, 40))
    _, high = least_squares_range(counts, edges, float(values.min()), 40.0, levels=64)
    assert high < 25
    flat, edges = np.histogram(np.linspace(-1, 1, 10_000), 512, range=(-1, 1))
    assert least_squares_range(flat, edges, -1.0, 1.0) == pytest.approx((-1.0, 1.0))


def test_a_tensor_that_is_always_zero_has_an_empty_range():
    feeds = [{"image": np.zeros((1, 4, 5, 5), np.float32)}]
    for method in METHODS:
        assert observe(conv_model(), ["image"], lambda: feeds, method)["image"] == (0.0, 0.0)


def test_ranges_need_a_second_look_but_the_same_data():
    calls = []

    def feeds():
        calls.append(1)
        return image_feeds()

    observe(conv_model(), ["one"], feeds, "minmax")
    assert len(calls) == 1
    observe(conv_model(), ["one"], feeds, "percentile")
    assert len(calls) == 3
