"""Corrections of coremltools' PyTorch frontend, in force during one conversion.

Some of its conversions change the function or its precision, silently:

* ``1 / x`` becomes ``inverse`` with its default epsilon of 1e-4 added to ``x``;
* ``full_like`` with a value that is only known at run time becomes 0.0, a float;
* clamping integers goes through float32, or float16 where the program is float16;
* a floored quotient of integers, such as a number of windows, becomes float32;
* GELU by its tanh formula becomes the exact one, up to 5e-4 apart;
* a Python number beside a float16 tensor widens the tensor, and all that follows, to float32.

PyTorch's own rules are put in their place, and taken out again afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from scaleport.errors import ExportError


@contextlib.contextmanager
def corrected_frontend() -> Iterator[None]:
    """Replace the conversions named above within the context.

    Raises:
        ExportError: if this coremltools is built differently from the versions this is made for.
    """
    try:
        from coremltools.converters.mil.frontend.torch import ops as frontend
        from coremltools.converters.mil.frontend.torch.torch_op_registry import (
            _TORCH_OPS_REGISTRY as REGISTRY,
        )

        table: dict[str, Any] = REGISTRY.name_to_func_mapping
        promote = frontend.promote_input_dtypes
        rules = _rules(frontend, table["clamp"], promote)
        before = {name: table[name] for name in rules}
    except (ImportError, AttributeError, KeyError) as error:
        raise ExportError(
            f"this coremltools is not one that Core ML export knows, 9.0 is: {error}"
        ) from error
    table.update(rules)
    frontend.promote_input_dtypes = _promotion(promote)
    try:
        yield
    finally:
        table.update(before)
        frontend.promote_input_dtypes = promote


def unknown_operators(program: torch.export.ExportedProgram) -> set[str]:
    """Operators of a program that the frontend has no rule for; PyTorch must rewrite them first.

    Empty where coremltools is not installed: the conversion says so itself.
    """
    try:
        from coremltools.converters.mil.frontend.torch.torch_op_registry import (
            _TORCH_OPS_REGISTRY as REGISTRY,
        )
        from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind
    except ImportError:
        return set()
    kinds = {
        sanitize_op_kind(node.target.name())  # type: ignore[no-untyped-call]
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    }
    return {kind for kind in kinds if kind not in REGISTRY}


def _promotion(original: Any) -> Any:
    """PyTorch's rule: a number does not widen a tensor of its own kind, float or integer."""
    from coremltools.converters.mil.mil import Builder, Var, types

    def kind(value: Any) -> str:
        if types.is_float(value.dtype):
            return "float"
        return "int" if types.is_int(value.dtype) else "other"

    def promote(values: Any) -> Any:
        values = [v if isinstance(v, Var) else Builder.const(val=v) for v in values]
        tensors = [v for v in values if v.rank > 0]
        kinds = {kind(v) for v in values}
        if not tensors or "other" in kinds:
            return original(values)
        tensors = original(list(tensors))
        dtype = tensors[0].dtype
        if kind(tensors[0]) == "int" and "float" in kinds:
            return original(values)
        queue = iter(tensors)
        return [next(queue) if v.rank > 0 else _number(v, dtype) for v in values]

    return promote


def _number(value: Any, dtype: Any) -> Any:
    """A rank-0 value in another type; a constant stays a constant."""
    from coremltools.converters.mil.mil import Builder, types

    if value.dtype == dtype:
        return value
    if value.val is not None:
        return Builder.const(val=types.nptype_from_builtin(dtype)(value.val))
    return Builder.cast(x=value, dtype=types.builtin_to_string(dtype))


def _rules(frontend: Any, clamp_floats: Any, promote: Any) -> dict[str, Any]:
    """The corrected conversions by operator name."""
    from coremltools.converters.mil.mil import Builder, types

    def reciprocal(context: Any, node: Any) -> None:
        x = frontend._get_inputs(context, node, expected=1)[0]
        one = types.nptype_from_builtin(x.dtype)(1)
        context.add(Builder.real_div(x=one, y=x, name=node.name))

    def full_like(context: Any, node: Any) -> None:
        reference, value = frontend._get_inputs(context, node, min_expected=2)[:2]
        kept = frontend._get_kwinputs(context, node, "dtype", default=[None])[0]
        if kept is not None and kept.val is not None:
            dtype = np.dtype(frontend.NUM_TO_NUMPY_DTYPE[int(kept.val)])
        else:
            dtype = np.dtype(types.nptype_from_builtin(reference.dtype))
        dtype = np.dtype(np.int32) if dtype.kind == "i" else dtype
        if value.val is not None:
            filled = Builder.fill_like(
                ref_tensor=reference, value=dtype.type(value.val), name=node.name
            )
        else:
            zeros = Builder.fill_like(ref_tensor=reference, value=dtype.type(0))
            number = _number(value, zeros.dtype)
            filled = Builder.add(x=zeros, y=number, name=node.name)
        context.add(filled)

    def clamp(context: Any, node: Any) -> None:
        inputs = frontend._get_inputs(context, node, expected=[1, 2, 3])
        limits = [v for v in inputs[1:] if v is not None]
        if not types.is_int(inputs[0].dtype) or any(types.is_float(v.dtype) for v in limits):
            clamp_floats(context, node)
            return
        out = inputs[0]
        for limit, operation in zip(inputs[1:], (Builder.maximum, Builder.minimum), strict=False):
            if limit is not None:
                x, y = promote([out, limit])
                out = operation(x=x, y=y)
        context.add(Builder.identity(x=out, name=node.name))

    def floor_divide(context: Any, node: Any) -> None:
        x, y = promote(frontend._get_inputs(context, node, expected=2))
        context.add(Builder.floor_div(x=x, y=y, name=node.name))

    def gelu(context: Any, node: Any) -> None:
        x = frontend._get_inputs(context, node, min_expected=1)[0]
        # A keyword of the traced operator, which the frontend's own rule does not look at.
        asked = frontend._get_kwinputs(context, node, "approximate", default=["none"])[0]
        mode = "TANH_APPROXIMATION" if getattr(asked, "val", asked) == "tanh" else "EXACT"
        context.add(Builder.gelu(x=x, mode=mode, name=node.name))

    return {
        "gelu": gelu,
        "reciprocal": reciprocal,
        "full_like": full_like,
        "clamp": clamp,
        "floor_divide": floor_divide,
        "floordiv": floor_divide,
    }
