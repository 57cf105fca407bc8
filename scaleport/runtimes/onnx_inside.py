"""ONNX graphs with every tensor as an output, for the backends that run ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scaleport.errors import BackendError
from scaleport.runtimes.inside import Inner

if TYPE_CHECKING:
    import onnx

MODULE_KEY: Final = "module"
"""Metadata of a node: the PyTorch module that it came from."""


def module_of(node: onnx.NodeProto) -> str:
    """Path of the PyTorch module that a node came from; empty if it is not known."""
    found = next((p.value for p in node.metadata_props if p.key == MODULE_KEY), "")
    # The tracer's own word for "none".
    return "" if found.startswith("_empty_nn_module") else found


def marked(path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A graph, and the same graph with every tensor as an output.

    Raises:
        BackendError: if onnx or Polygraphy is not installed.
    """
    try:
        import onnx
        from polygraphy import constants
        from polygraphy.backend.onnx import modify_outputs
    except ImportError as error:
        raise BackendError(
            f"bisect needs {error.name}, which is not installed: pip install 'scaleport[export]'"
        ) from error
    model = onnx.load(str(path))
    return model, modify_outputs(model, outputs=constants.MARK_ALL, copy=True)


def named(model: onnx.ModelProto, values: Mapping[str, Any]) -> list[Inner]:
    """The tensors of a graph that have a value, in the order of the graph.

    Args:
        model: the graph as it is.
        values: arrays by the name of the tensor.
    """
    found: list[Inner] = []
    for node in model.graph.node:
        module = module_of(node)
        found += [
            Inner(name, node.op_type, np.asarray(values[name]), module)
            for name in node.output
            if name in values
        ]
    return found


def rename_tensors(node: onnx.NodeProto, renamed: Callable[[str], str]) -> None:
    """Rename what a node reads and makes, in the bodies of loops and branches too.

    A body reads tensors of the graph around it by name, and none of its own may be called like
    one of those: all names in it change alike.
    """
    node.input[:] = [renamed(tensor) for tensor in node.input]
    node.output[:] = [renamed(tensor) for tensor in node.output]
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for value in (*body.input, *body.output, *body.value_info, *body.initializer):
                value.name = renamed(value.name)
            for sparse in body.sparse_initializer:
                sparse.values.name = renamed(sparse.values.name)
            for inner in body.node:
                rename_tensors(inner, renamed)
