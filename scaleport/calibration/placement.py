"""Quantise and dequantise nodes around the products of a graph, and nowhere else.

The rule, and why:

* weights: int8, symmetric, one scale per output channel, no int32 bias (TensorRT refuses it);
  between -64 and 64, so that no processor saturates (see :data:`WEIGHT_LIMIT`);
* what a product reads: uint8 with a zero point. ONNX Runtime turns only such graphs into integer
  convolutions throughout, and nothing is lost on what follows a ReLU, which is never negative.
  TensorRT takes symmetric int8 only: :func:`scaleport.export.qdq.symmetric` rewrites the pairs;
* what a convolution makes is quantised too, after its ReLU if it has one, since ONNX Runtime runs
  integer convolutions only between quantised tensors;
* a matrix product whose result stays float gets its bias as a sum of its own: ONNX Runtime computes
  a ``Gemm`` with a float bias in integers only where the result is quantised, and otherwise turns
  its inputs back into float and multiplies those, three times slower;
* a reshape in front of a product moves int8 values: OpenVINO then rounds in the same pass as the
  sum or ReLU before it, and else in a pass of its own that takes a tenth of a product;
* everything else reads the float tensor: residual sums, softmax, normalisation and the grid never
  see a rounded value that they need not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from scaleport.calibration.layers import Layer
from scaleport.calibration.ranges import Ranges

_QUANTISED: Final = "int8"
_TINY: Final = 1e-12

WEIGHT_LIMIT: Final = 64
"""Largest magnitude of an int8 weight.

x86 processors with AVX2 or AVX-512 but without VNNI multiply uint8 by int8 with ``vpmaddubsw``,
which adds two products in 16 bits and saturates: 255 * 127 + 255 * 127 = 64770 becomes 32767, in
ONNX Runtime and in OpenVINO, without a word. 255 * 64 + 255 * 64 = 32640 fits, whatever the
activations are and whichever two weights a kernel pairs. So a bundle computes the same integers on
every processor, and a loss that was measured on one holds on the others.
"""


@dataclass(frozen=True)
class Borders:
    """The tensors that are quantised for a set of layers.

    Attributes:
        read: tensors that products read.
        made: tensors that convolutions make, with the ReLU behind them if there is one.
    """

    read: frozenset[str]
    made: frozenset[str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted(self.read | self.made))


def borders(model: onnx.ModelProto, layers: Sequence[Layer]) -> Borders:
    """Which tensors have to be quantised so that layers run in int8."""
    outputs = {value.name for value in model.graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    wanted = {name for layer in layers for name in layer.outputs}
    read, made = set(), set()
    for node in model.graph.node:
        if node.output[0] not in wanted:
            continue
        read.add(node.input[0])
        if node.op_type == "Conv":
            result = node.output[0]
            after = readers.get(result, [])
            if len(after) == 1 and after[0].op_type == "Relu" and result not in outputs:
                result = after[0].output[0]
            if result not in outputs:
                made.add(result)
    return Borders(frozenset(read), frozenset(made))


def place(model: onnx.ModelProto, layers: Sequence[Layer], ranges: Ranges) -> onnx.ModelProto:
    """The graph with the given layers in int8.

    Args:
        model: the float32 graph; not changed.
        layers: layers of this graph.
        ranges: of all tensors of :func:`borders`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not layers:
        return result
    graph = result.graph
    edge = borders(model, layers)
    by_output = {name: layer for layer in layers for name in layer.outputs}
    constants = {i.name: i for i in graph.initializer}
    added: dict[str, onnx.TensorProto] = {}
    nodes = []
    rounded = _rounded(model, edge)
    reshaped = _reshaped(model, edge, set(by_output))

    def pair(tensor: str, source: str = "", target: str = "") -> list[onnx.NodeProto]:
        step, zero = unsigned_scale(*ranges[tensor])
        ends = (source or tensor, target or f"{tensor}/{_QUANTISED}")
        return _pair(tensor, ends, np.float32(step), np.uint8(zero), added)

    for value in graph.input:
        if value.name in edge.tensors:
            nodes += pair(value.name)
    for node in graph.node:
        ours = node.output[0] in by_output
        _read_rounded(node, edge, ours)
        if ours:
            nodes += _weight(node, constants[node.input[1]], added)
        if node.output[0] in reshaped:
            name = node.output[0]
            nodes += pair(name, node.input[0], f"{name}/{_QUANTISED}/source")
            node.input[0], node.output[0] = f"{name}/{_QUANTISED}/source", f"{name}/{_QUANTISED}"
            nodes.append(node)
            continue
        nodes += _without_bias(node) if ours and node.output[0] not in rounded else [node]
        for name in node.output:
            if name in edge.tensors:
                nodes += pair(name)
    _replace(graph, nodes, added)
    return result


def _read_rounded(node: onnx.NodeProto, edge: Borders, ours: bool) -> None:
    """Have a node read what is quantised; whether it is a layer in int8 decides what that is."""
    for place_, name in enumerate(node.input):
        # What only passes a quantised result on may read it rounded: it is, anyway.
        if (name in edge.read and ours and place_ == 0) or name in edge.made:
            node.input[place_] = f"{name}/{_QUANTISED}"


def _replace(
    graph: onnx.GraphProto,
    nodes: Sequence[onnx.NodeProto],
    added: Mapping[str, onnx.TensorProto],
) -> None:
    """Put nodes in place of a graph's own, with the constants that they read."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in graph.node for name in node.input}
    tensors = [i for i in (*graph.initializer, *added.values()) if i.name in read]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _rounded(model: onnx.ModelProto, edge: Borders) -> set[str]:
    """Results that are quantised, themselves or what a ReLU makes of them."""
    tensors = set(edge.tensors)
    relus = (node for node in model.graph.node if node.op_type == "Relu")
    return tensors | {relu.input[0] for relu in relus if relu.output[0] in tensors}


def _reshaped(model: onnx.ModelProto, edge: Borders, ours: set[str]) -> set[str]:
    """Results of reshapes that are quantised and that nothing but products in int8 reads."""
    found = {n.output[0] for n in model.graph.node if n.op_type == "Reshape"} & edge.read
    found -= {value.name for value in model.graph.output} | edge.made
    for node in model.graph.node:
        product = node.output[0] in ours
        found -= set(node.input[1:] if product else node.input)
    return found


def _without_bias(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A matrix product and its bias as two operations; anything else as it is."""
    if node.op_type != "Gemm" or len(node.input) < 3:
        return [node]
    product = onnx.NodeProto()
    product.CopyFrom(node)
    product.output[0] = f"{node.output[0]}/product"
    del product.input[2:]
    added = helper.make_node("Add", [product.output[0], node.input[2]], [node.output[0]])
    added.metadata_props.extend(node.metadata_props)
    return [product, added]


def unsigned_scale(low: float, high: float) -> tuple[float, int]:
    """Step and zero point of uint8 for a range; zero is always represented exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, _TINY)
    return step, int(np.clip(np.rint(-low / step), 0, 255))


def _pair(
    tensor: str,
    ends: tuple[str, str],
    step: np.float32,
    zero: Any,
    added: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    source, target = ends
    scale, zero_point, small = f"{tensor}/step", f"{tensor}/zero", f"{tensor}/small"
    added[scale] = numpy_helper.from_array(np.asarray(step), scale)
    added[zero_point] = numpy_helper.from_array(np.asarray(zero), zero_point)
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero_point], [small], name=small),
        helper.make_node("DequantizeLinear", [small, scale, zero_point], [target], name=target),
    ]


def _weight(
    node: onnx.NodeProto, weight: onnx.TensorProto, added: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Read a weight as int8; made once for all operations that share it."""
    target = f"{weight.name}/{_QUANTISED}"
    node.input[1] = target
    names = [f"{weight.name}/{part}" for part in ("small", "step", "zero")]
    if names[0] in added:
        return []
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    values = numpy_helper.to_array(weight)
    axis = 0 if node.op_type == "Conv" or transposed else values.ndim - 1
    small, step = quantise_weight(values, axis)
    for name, array in zip(names, (small, step, np.zeros(step.shape, np.int8)), strict=True):
        added[name] = numpy_helper.from_array(array, name)
    return [helper.make_node("DequantizeLinear", names, [target], name=target, axis=axis)]


def quantise_weight(
    values: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight in int8, symmetric: values of the same shape, and one step per channel of ``axis``.

    No magnitude is above :data:`WEIGHT_LIMIT`.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    largest = np.maximum(np.abs(values).max(axis=others), _TINY).astype(np.float32)
    step = largest / np.float32(WEIGHT_LIMIT)
    shape = [1] * values.ndim
    shape[axis] = -1
    small = np.clip(np.rint(values / step.reshape(shape)), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return small.astype(np.int8), step
