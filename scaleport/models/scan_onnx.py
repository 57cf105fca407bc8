"""The operators of the selective scan as ONNX ``Scan``.

Annotations are read when the functions are made: they say how many outputs there are.
"""

# Of the bodies of scans, onnxscript reads the source, without annotations.
# ruff: noqa: ANN001, ANN202, RET504, RUF059
# mypy: disable-error-code="untyped-decorator, no-untyped-def, misc"
from onnxscript import FLOAT, graph, opset18, script


@script(default_opset=opset18)
def lane_ends_onnx(
    state: FLOAT[...], delta: FLOAT[...], driven: FLOAT[...], drive: FLOAT[...], decay: FLOAT[...]
) -> FLOAT[...]:
    """Write :func:`scaleport.models.scan_graph.lane_ends`."""

    @graph()
    def body(h, step, value, b):
        last = opset18.Constant(value_ints=[-1])
        middle = opset18.Constant(value_ints=[1])
        left = opset18.Exp(opset18.Unsqueeze(step, last) * decay)
        after = left * h + opset18.Unsqueeze(value, last) * opset18.Unsqueeze(b, middle)
        return after

    end = opset18.Scan(state, delta, driven, drive, body=body, num_scan_inputs=3)
    return end


@script(default_opset=opset18)
def lane_outputs_onnx(
    state: FLOAT[...],
    delta: FLOAT[...],
    driven: FLOAT[...],
    drive: FLOAT[...],
    read: FLOAT[...],
    decay: FLOAT[...],
) -> FLOAT[...]:
    """Write :func:`scaleport.models.scan_graph.lane_outputs`."""

    @graph()
    def body(h, step, value, b, c):
        last = opset18.Constant(value_ints=[-1])
        middle = opset18.Constant(value_ints=[1])
        left = opset18.Exp(opset18.Unsqueeze(step, last) * decay)
        after = left * h + opset18.Unsqueeze(value, last) * opset18.Unsqueeze(b, middle)
        y = opset18.ReduceSum(after * opset18.Unsqueeze(c, middle), last, keepdims=0)
        return after, y

    end, y = opset18.Scan(state, delta, driven, drive, read, body=body, num_scan_inputs=4)
    return y


@script(default_opset=opset18)
def carry_onnx(passed: FLOAT[...], made: FLOAT[...]) -> FLOAT[...]:
    """Write :func:`scaleport.models.scan_graph.carry`."""
    first = opset18.Constant(value_ints=[0])
    zero = opset18.ReduceSum(made, first, keepdims=0) * 0.0

    @graph()
    def body(h, left, added):
        before = opset18.Identity(h)
        after = left * h + added
        return after, before

    _, entering = opset18.Scan(zero, passed, made, body=body, num_scan_inputs=2)
    return entering
