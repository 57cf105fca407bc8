"""Quantised graphs as TensorRT takes them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def symmetric(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph for TensorRT: activations as symmetric int8, zero points all 0.

    The range of each tensor grows to the larger of its ends on both sides; what is never negative
    loses one of its eight bits.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {i.name: i for i in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        step_tensor, zero_tensor = constants[node.input[1]], constants[node.input[2]]
        zero = int(numpy_helper.to_array(zero_tensor))
        if zero_tensor.data_type != onnx.TensorProto.UINT8:
            continue
        step = float(numpy_helper.to_array(step_tensor)) * max(zero, 255 - zero) / 127
        for tensor, value in ((step_tensor, np.float32(step)), (zero_tensor, np.int8(0))):
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))
    return result
