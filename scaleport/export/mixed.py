"""Mixed precision: which parts of a float16 build stay float32, and the plan as it came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.base import Stage
from scaleport.runtimes.onnx_inside import module_of

_MOVES = ("Cast", "Identity", "Shape", "Constant")


class InFloat32(nn.Module):
    """A module that is computed in float32 between neighbours in float16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        """Widen the inputs, narrow the results to the type of the first input."""
        narrow = inputs[0].dtype
        result = self.module(*(x.float() if x.is_floating_point() else x for x in inputs))
        if isinstance(result, Tensor):
            return result.to(narrow)
        return tuple(part.to(narrow) for part in result)


def keep_float32(half: list[Stage], full: list[Stage], kept: Sequence[str]) -> list[Stage]:
    """Stages of a float16 build with some modules in float32.

    Args:
        half: the stages in float16; their modules are changed.
        full: the same stages in float32, which give the weights before rounding.
        kept: paths of modules, as messages and graphs name them.

    Raises:
        UsageError: if a path names no module of any stage, or one inside another that is kept.
    """
    missing = set(kept)
    exact = {stage.name: stage for stage in full}
    result = []
    for stage in half:
        here = [path for path in kept if path in dict(stage.module.named_modules())]
        for path in here:
            inside = [other for other in kept if path.startswith(f"{other}.")]
            if inside:
                raise UsageError(f"{path} is part of {inside[0]}, which stays float32 already")
            twin = exact[stage.name].module.get_submodule(path)
            parent, _, name = path.rpartition(".")
            setattr(stage.module.get_submodule(parent), name, InFloat32(twin))
        missing -= set(here)
        words = "; ".join(part for part in (stage.float32_parts, *here) if part)
        result.append(replace(stage, float32_parts=words))
    if missing:
        raise UsageError(
            f"there is no module {sorted(missing)[0]!r} to keep in float32; names are those that "
            "scaleport validate gives, such as encoder.body.0.conv1"
        )
    return result


def float32_operations(model: onnx.ModelProto) -> tuple[str, ...]:
    """Operations of a float16 graph that compute in float32: ``module: Kind``, each once, sorted.

    Casts and questions about shapes compute nothing.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*typed.graph.value_info, *typed.graph.output, *typed.graph.input)
    }
    found = set()
    for node in model.graph.node:
        if node.op_type in _MOVES:
            continue
        if any(types.get(name) == onnx.TensorProto.FLOAT for name in node.output):
            module = module_of(node)
            found.add(f"{module or model.graph.name}: {node.op_type}")
    return tuple(sorted(found))
