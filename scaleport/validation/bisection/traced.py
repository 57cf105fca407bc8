"""Every tensor that PyTorch computes in a stage, by the name that exported graphs give it.

Exporters name tensors after the nodes of the traced program. The same stage is traced again here
and its program is run node by node, so that each tensor of a graph can be held against the one of
the same name, and the module that it came from is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_map

from scaleport.aliases import Array
from scaleport.models.base import Stage

_NARROW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Tensor:
    """One tensor of the reference: the module that made it, the operation, its value.

    ``source`` is the name of the operation's first input.
    """

    module: str
    operation: str
    value: Array
    source: str = ""


def reference_tensors(
    program: torch.export.ExportedProgram,
    stage: Stage,
    exact: Stage,
    feeds: Mapping[str, Array],
    chosen: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Run a traced program node by node, in float32 whatever the precision of its build.

    Args:
        program: what :func:`scaleport.export.by_format.trace_for` made of ``stage``.
        stage: the stage as it was built; names its inputs and outputs.
        exact: the same stage in float32, whose weights are taken.
        feeds: one array per input of the stage.
        chosen: values by name, which take the place of what PyTorch makes there.

    Returns:
        Tensors by name. Outputs have the names of the stage's ports.
    """
    weights = {
        **dict(exact.module.named_parameters(remove_duplicate=False)),
        **dict(exact.module.named_buffers(remove_duplicate=False)),
    }
    inputs = iter(stage.inputs)
    arguments: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            arguments.append(torch.from_numpy(np.array(feeds[next(inputs).name], order="C")))
            continue
        target = str(spec.target)
        own: Any = program.state_dict.get(target, program.constants.get(target))
        better = weights.get(target)
        fits = better is not None and own is not None and better.shape == own.shape
        arguments.append(_widened(better if fits else own))
    recorder = _Recorder(program.graph_module, chosen)
    with torch.inference_mode():
        results = recorder.run(*arguments)
    found = recorder.tensors
    for port, value in zip(stage.outputs, results, strict=True):
        maker = next((t for t in found.values() if t.value is recorder.arrays.get(id(value))), None)
        last = maker or Tensor("", "output", _array(value))
        found[port.name] = last
    return found


def module_of(node: torch.fx.Node) -> str:
    """Path of the innermost module that a node came from; empty for the stage itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    path = paths[-1] if paths else ""
    return "" if path.startswith("_empty_nn_module") else path


class _Recorder(torch.fx.Interpreter):
    """Runs a program in float32 and keeps what every node makes."""

    def __init__(self, module: torch.fx.GraphModule, chosen: Mapping[str, Array]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.chosen = chosen
        self.tensors: dict[str, Tensor] = {}
        self.arrays: dict[int, Array] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node and keep its result, if that is a tensor."""
        result = super().run_node(n)
        if n.name in self.chosen:
            result = torch.from_numpy(np.array(self.chosen[n.name]))
        if isinstance(result, torch.Tensor) and n.op == "call_function":
            array = _array(result)
            self.arrays[id(result)] = array
            source = n.all_input_nodes[0].name if n.all_input_nodes else ""
            self.tensors[n.name] = Tensor(module_of(n), _operation(n), array, source)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation, with half precision asked for as single.

        A view that the trace made of a reshape is one again: values that are put in a tensor's
        place lie in memory in an order of their own.
        """
        args, kwargs = tree_map(_wide_type, (args, kwargs))
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        return super().call_function(target, args, kwargs)


def _wide_type(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in _NARROW else value


def _widened(value: Any) -> Any:
    narrow = isinstance(value, torch.Tensor) and value.dtype in _NARROW
    return value.float() if narrow else value


def _array(value: torch.Tensor) -> Array:
    # A copy: an operation may write into its input later.
    return np.array(value.detach().cpu().numpy())


def _operation(node: torch.fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]
