"""Small ONNX graphs and the ranges to build them for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scaleport.bundle.manifest import ScaleRange, SizeRange
from scaleport.runtimes.engine_record import ShapeRange

HEIGHT = SizeRange(min=4, opt=24, max=96)
WIDTH = SizeRange(min=5, opt=32, max=128)
SCALE = ScaleRange(min=1.0, max=4.0)
BATCH = SizeRange(min=1, opt=1, max=2)
IMAGE = ShapeRange(min=(1, 3, 4, 5), opt=(1, 3, 24, 32), max=(2, 3, 96, 128))
SIZE = ShapeRange(min=(4, 5), opt=(48, 64), max=(384, 512), of="values")


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    def infos(ports: dict[str, tuple[int, list[int | str]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in ports.items()]

    graph = helper.make_graph(
        nodes,
        "graph",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


IMAGE_IO = {"image": (TensorProto.FLOAT, ["N", 3, "H", "W"])}


def axis_nodes(axis: str, dim: int) -> list[onnx.NodeProto]:
    """Index and offset of one axis from the values of ``size``, in non-negative integers.

    One period 2N is added to ((2a + 1) * n - N) and one taken off the quotient again, since
    integer division in ONNX rounds towards zero.
    """

    def node(op: str, inputs: str, output: str, **attributes: int) -> onnx.NodeProto:
        names = [name.replace("@", axis) for name in inputs.split()]
        return helper.make_node(op, names, [output.replace("@", axis)], **attributes)

    return [
        node("Shape", "image", "@n", start=dim, end=dim + 1),
        node("Gather", "size @pick", "@N"),
        node("Squeeze", "@N first", "@stop"),
        node("Range", "zero @stop one", "@a"),
        node("Mul", "@a two", "@2a"),
        node("Add", "@2a one", "@2a1"),
        node("Mul", "@2a1 @n", "@left"),
        node("Add", "@left @N", "@num"),
        node("Mul", "@N two", "@den"),
        node("Div", "@num @den", "@quotient"),
        node("Sub", "@quotient one", "@raw"),
        node("Mod", "@num @den", "@rest"),
        node("Cast", "@rest", "@restf", to=TensorProto.FLOAT),
        node("Cast", "@den", "@denf", to=TensorProto.FLOAT),
        node("Div", "@restf @denf", "@offset"),
        node("Max", "@raw first", "@low"),
        node("Sub", "@n one", "@last"),
        node("Min", "@low @last", "@index"),
    ]


def whole_model() -> onnx.ModelProto:
    """``image, size -> upscaled``: nearest pixels times the offsets, so both are visible."""
    nodes = [
        *axis_nodes("y", 2),
        *axis_nodes("x", 3),
        helper.make_node("Gather", ["image", "yindex"], ["rows"], axis=2),
        helper.make_node("Gather", ["rows", "xindex"], ["pixels"], axis=3),
        helper.make_node("Unsqueeze", ["yoffset", "last_axis"], ["yoffset2"]),
        helper.make_node("Add", ["yoffset2", "xoffset"], ["weight"]),
        helper.make_node("Mul", ["pixels", "weight"], ["upscaled"]),
    ]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.int64(2),
        "first": np.array([0], np.int64),
        "last_axis": np.array([1], np.int64),
        "ypick": np.array([0], np.int64),
        "xpick": np.array([1], np.int64),
    }
    return model_of(
        nodes,
        {**IMAGE_IO, "size": (TensorProto.INT64, [2])},
        {"upscaled": (TensorProto.FLOAT, ["N", 3, "Ho", "Wo"])},
        {name: np.asarray(value) for name, value in constants.items()},
    )


def conv_model(external: Path | None = None, scale: float = 1.0) -> onnx.ModelProto:
    weight = (np.arange(3 * 3 * 9, dtype=np.float32) * scale).reshape(3, 3, 3, 3)
    model = model_of(
        [helper.make_node("Conv", ["image", "weight"], ["out"], pads=[1, 1, 1, 1], name="conv")],
        IMAGE_IO,
        {"out": (TensorProto.FLOAT, ["N", 3, "H", "W"])},
        {"weight": weight},
    )
    if external is not None:
        onnx.save(
            model,
            external,
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
    return model


def quantised_conv(quantise_bias: bool) -> onnx.ModelProto:
    constants = {
        "x_scale": np.float32(0.01),
        "x_zero": np.int8(0),
        "w_int": np.arange(-60, 75, 5, dtype=np.int8).repeat(4)[:108].reshape(4, 3, 3, 3),
        "w_scale": np.full(4, 0.01, np.float32),
        "w_zero": np.zeros(4, np.int8),
        "bias" + "_int" * quantise_bias: np.ones(4, np.int32 if quantise_bias else np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "x_scale", "x_zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w_int", "w_scale", "w_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w", "bias"], ["out"], pads=[1, 1, 1, 1]),
    ]
    if quantise_bias:
        constants |= {"b_zero": np.zeros(4, np.int32)}
        inputs = ["bias_int", "w_scale", "b_zero"]
        node = helper.make_node("DequantizeLinear", inputs, ["bias"], axis=0, name="bias_node")
        nodes.insert(3, node)
    out = {"out": (TensorProto.FLOAT, ["N", 4, "H", "W"])}
    return model_of(nodes, IMAGE_IO, out, {k: np.asarray(v) for k, v in constants.items()})
