"""Linear layers as ``Gemm``, the form that backends run fastest in int8.

A linear layer on a map of pixels is exported as a matrix product and a sum. ONNX Runtime fuses
neither the sum nor the rounding to int8 into such a product, but both into ``Gemm``, which takes
matrices only. So runs of linear layers and the activations between them are computed on
[pixels, channels], with one reshape before and one after.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_POINTWISE = ("Relu", "Gelu", "LeakyRelu", "Sigmoid", "Tanh")


def flatten_linears(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with ``MatMul`` by a constant and ``Add`` of a constant as ``Gemm``.

    Args:
        model: not changed. Tensors that other operations read keep their names and shapes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {i.name: i for i in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {value.name for value in graph.output}
    work = _Flattening(constants, readers, kept)
    nodes = [made for node in graph.node for made in work.rewritten(node)]
    if not work.done:
        return result
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(work.shapes())
    _drop_unread(graph)
    return result


class _Flattening:
    def __init__(
        self,
        constants: dict[str, onnx.TensorProto],
        readers: dict[str, list[onnx.NodeProto]],
        kept: set[str],
    ) -> None:
        self.constants = constants
        self.readers = readers
        self.kept = kept
        self.done = False
        self._flat: dict[str, str] = {}
        """Tensor to its [pixels, channels] form."""
        self._lead: dict[str, str] = {}
        """Tensor to the tensor that holds the shape of its leading dimensions."""
        self._numbers: dict[str, list[int]] = {"flatten/0": [0], "flatten/-1": [-1]}
        self._sums: dict[str, onnx.NodeProto] = {}
        """Outputs of the products that have been taken up, to the product."""

    def rewritten(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What takes the place of a node."""
        if node.op_type == "MatMul" and self._biased(node) is not None:
            self._sums[node.output[0]] = node
            return []
        product = self._product_of(node)
        if product is not None:
            return self._linear(product, node)
        if node.op_type in _POINTWISE and node.input[0] in self._flat:
            return self._pointwise(node)
        return [node]

    def _biased(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The sum that a product's result goes to and nothing else reads, if there is one."""
        weight = self.constants.get(node.input[1])
        if weight is None or len(weight.dims) != 2 or node.output[0] in self.kept:
            return None
        after = self.readers.get(node.output[0], [])
        if len(after) != 1 or after[0].op_type != "Add":
            return None
        other = [name for name in after[0].input if name != node.output[0]]
        bias = self.constants.get(other[0]) if len(other) == 1 else None
        fits = bias is not None and list(bias.dims) == [weight.dims[1]]
        return after[0] if fits else None

    def _product_of(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        return next((self._sums[n] for n in node.input if n in self._sums), None)

    def _linear(self, product: onnx.NodeProto, added: onnx.NodeProto) -> list[onnx.NodeProto]:
        self.done = True
        source, weight = product.input[0], self.constants[product.input[1]]
        bias = next(name for name in added.input if name in self.constants)
        target = added.output[0]
        nodes = []
        if source not in self._flat:
            flat, shape, lead = f"{source}/flat", f"{source}/shape", f"{source}/lead"
            nodes += [
                helper.make_node("Shape", [source], [shape]),
                helper.make_node("Slice", [shape, "flatten/0", "flatten/-1"], [lead]),
                helper.make_node(
                    "Reshape", [source, self._shape(int(weight.dims[0]))], [flat], name=flat
                ),
            ]
            self._flat[source], self._lead[source] = flat, lead
        made = helper.make_node(
            "Gemm",
            [self._flat[source], weight.name, bias],
            [f"{target}/flat"],
            name=product.name or f"{target}/flat",
        )
        made.metadata_props.extend(product.metadata_props)
        nodes.append(made)
        self._flat[target], self._lead[target] = f"{target}/flat", self._lead[source]
        return nodes + self._restored(target, int(weight.dims[1]))

    def _pointwise(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        source, target = node.input[0], node.output[0]
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[0] = self._flat[source]
        made.output[0] = f"{target}/flat"
        self._flat[target], self._lead[target] = f"{target}/flat", self._lead[source]
        return [made, *self._restored(target, 0)]

    def _restored(self, tensor: str, channels: int) -> list[onnx.NodeProto]:
        """The tensor under its own name and shape; what nobody reads is dropped later."""
        shape = f"{tensor}/full"
        last = "flatten/-1" if not channels else self._last(channels)
        return [
            helper.make_node("Concat", [self._lead[tensor], last], [shape], axis=0),
            helper.make_node("Reshape", [self._flat[tensor], shape], [tensor]),
        ]

    def _shape(self, channels: int) -> str:
        self._numbers.setdefault(f"flatten/-1,{channels}", [-1, channels])
        return f"flatten/-1,{channels}"

    def _last(self, channels: int) -> str:
        self._numbers.setdefault(f"flatten/{channels}", [channels])
        return f"flatten/{channels}"

    def shapes(self) -> list[onnx.TensorProto]:
        """The constants that reshapes need."""
        return [
            numpy_helper.from_array(np.array(values, np.int64), name)
            for name, values in self._numbers.items()
        ]


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing reads."""
    read = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if any(name in read for name in node.output):
            read.update(node.input)
            nodes.append(node)
    nodes.reverse()
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in constants]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(tensors)
