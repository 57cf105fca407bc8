"""Where a graph overflows: the first operation that makes NaN or infinity of numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from scaleport.aliases import Array
from scaleport.runtimes.onnx_inside import module_of

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def first_overflow(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> str:
    """Name the first operation of an ONNX graph whose result is not finite though its inputs are.

    Args:
        model: the graph; not changed.
        feeds: its inputs.

    Returns:
        Kind and name of the operation, its PyTorch module, and its largest input; empty if every
        result is finite here.
    """
    import onnxruntime

    typed = onnx.shape_inference.infer_shapes(model)
    shown_model = onnx.ModelProto()
    shown_model.CopyFrom(model)
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed.graph.value_info}
    shown = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name not in shown and kinds.get(name) in _FLOATS:
                shown_model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Fused operations would hide what overflows inside them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        shown_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    values = dict(zip(names, session.run(names, dict(feeds)), strict=True)) | dict(feeds)
    for node in model.graph.node:
        if all(_finite(values.get(name)) for name in node.output):
            continue
        module = module_of(node)
        largest = max((_largest(values.get(name)) for name in node.input), default=0.0)
        where = f" in {module}" if module else ""
        name = node.name or node.output[0]
        return f"{node.op_type} {name!r}{where}, whose inputs reach {largest:.3g}"
    return ""


def _finite(value: Array | None) -> bool:
    return value is None or value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _largest(value: Array | None) -> float:
    if value is None or value.dtype.kind != "f" or not value.size:
        return 0.0
    return float(np.abs(value.astype(np.float64)).max())
