"""Which operations of a graph may become int8: products with a constant weight, and no others.

Softmax, normalisations and sums have no weight and stay float by themselves. What remains to be
kept is named here: products of coordinates, and what the model computes in float32 even in a
float16 build.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from scaleport.export.capture import TraceSizes, example_inputs
from scaleport.models.base import Stage
from scaleport.runtimes.onnx_inside import module_of

COORDINATES = frozenset(
    {"row_index", "row_offset", "col_index", "col_offset", "scale", "cell", "subpixel"}
)
"""Graph inputs that say where, not what: whatever is made of them alone is grid arithmetic."""

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_OPERATORS = ("convolution", "mkldnn_convolution", "linear", "addmm", "mm", "bmm", "matmul")


@dataclass(frozen=True)
class Layer:
    """One weight, and the operations that use it.

    Attributes:
        stage: name of its graph.
        name: the PyTorch module it came from, or the weight's name.
        weight: name of the weight in the graph.
        outputs: output tensors of the operations, which name them in the graph.
        parameters: number of values of the weight.
        fixed: why it must stay float; empty if it may be quantised.
    """

    stage: str
    name: str
    weight: str
    outputs: tuple[str, ...]
    parameters: int
    fixed: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other layer of the model."""
        return self.stage, self.name


def find_layers(
    model: onnx.ModelProto, stage: str, declared: Collection[str] = ()
) -> tuple[Layer, ...]:
    """The layers of a graph with a constant weight, in the order of computation.

    Args:
        model: a float32 graph.
        stage: its name.
        declared: modules that the model itself keeps in float32, see :func:`float32_modules`.
    """
    weights = {i.name: i for i in model.graph.initializer}
    content = _depends_on_content(model.graph)
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in _PRODUCTS and _weight_of(node, weights) is not None:
            groups.setdefault(node.input[1], []).append(node)
    taken: set[str] = set()
    layers = []
    for weight, nodes in groups.items():
        name = module_of(nodes[0]) or weight
        # A module may own several weights.
        name = name if name not in taken else f"{name}:{weight}"
        taken.add(name)
        fixed = ""
        if module_of(nodes[0]) in declared:
            fixed = "the model computes it in float32 in every precision"
        elif not any(node.input[0] in content for node in nodes):
            fixed = "grid arithmetic"
        elif not np.any(numpy_helper.to_array(weights[weight])):
            fixed = "its weight is zero"
        layers.append(
            Layer(
                stage,
                name,
                weight,
                tuple(node.output[0] for node in nodes),
                int(np.prod(weights[weight].dims)),
                fixed,
            )
        )
    return tuple(layers)


def _weight_of(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> onnx.TensorProto | None:
    tensor = weights.get(node.input[1])
    if tensor is None or tensor.data_type not in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
    ):
        return None
    if node.op_type == "Gemm":
        flags = {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
        plain = flags.get("alpha", 1.0) == 1 and flags.get("beta", 1.0) == 1
        return tensor if plain and not flags.get("transA") else None
    return tensor if node.op_type == "Conv" or len(tensor.dims) == 2 else None


def _depends_on_content(graph: onnx.GraphProto) -> set[str]:
    """Tensors that depend on the values of an image or of features, not on places alone."""
    found = {v.name for v in graph.input if v.name not in COORDINATES}
    for node in graph.node:
        # A shape is a place, whatever it is the shape of.
        if node.op_type != "Shape" and any(name in found for name in node.input):
            found.update(node.output)
    return found


def float32_modules(half: Stage) -> frozenset[str]:
    """Modules whose products a float16 build computes in float32, because the model says so.

    The stage is run once, in PyTorch, and its products are watched.

    Args:
        half: a stage of the float16 deploy form.
    """
    path: list[str] = [""]
    handles = []
    for name, module in half.module.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda *_, name=name: path.append(name)),
            module.register_forward_hook(lambda *_: path.pop() and None),
        ]
    watch = _Watch(path)
    try:
        with torch.no_grad(), watch:
            half.module.eval()(*example_inputs(half, TraceSizes()))
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(watch.wide - watch.narrow - {""})


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sorts modules by the type that their products compute in."""

    def __init__(self, path: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.wide: set[str] = set()
        self.narrow: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and take note of products."""
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _OPERATORS and isinstance(result, torch.Tensor):
            kind = self.wide if result.dtype == torch.float32 else self.narrow
            kind.add(self.path[-1])
        return result
