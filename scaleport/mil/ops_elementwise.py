"""Operations that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.mil.call import Call, narrow, operation, widen

# numpy rounds a float16 result after every operation, as the hardware does.
_BINARY: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
    "mod": np.mod,
    "floor_div": np.floor_divide,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}

_UNARY: Final[dict[str, Callable[[Array], Array]]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "identity": np.asarray,
    "logical_not": np.logical_not,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}

CASTS: Final[dict[str, np.dtype[Any]]] = {
    "fp16": np.dtype(np.float16),
    "fp32": np.dtype(np.float32),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "bool": np.dtype(np.bool_),
}

# erf(t) / t is smooth and even: a Chebyshev series in t^2 reaches 1e-12 up to |t| = 4, and beyond
# that erf rounds to 1 in float32.
_ERF_LIMIT: Final = 4.0


def _erf_ratio(u: Array) -> Array:
    return np.array([math.erf(t) / t if t else 2 / math.sqrt(math.pi) for t in np.sqrt(u)])


_ERF_SERIES: Final = np.polynomial.Chebyshev.interpolate(_erf_ratio, 40, domain=[0, _ERF_LIMIT**2])


def erf(x: Array) -> Array:
    """Error function, within 1e-7, in the type of ``x``."""
    t = np.clip(x.astype(np.float64), -_ERF_LIMIT, _ERF_LIMIT)
    return narrow(t * _ERF_SERIES(t * t), x.dtype)


def sigmoid(x: Array) -> Array:
    """Logistic function of a float32 or float64 array, without overflow."""
    out: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return out


@operation(*_BINARY)
def binary(call: Call) -> Array:
    """Arithmetic, comparison and logic of two tensors that broadcast."""
    return _BINARY[call.operation.kind](call.array("x"), call.array("y"))


@operation(*_UNARY)
def unary(call: Call) -> Array:
    """A function of one tensor."""
    return _UNARY[call.operation.kind](call.array("x"))


@operation("real_div")
def real_div(call: Call) -> Array:
    """Division of floats; what integers give is not documented, so they are refused."""
    x, y = call.array("x"), call.array("y")
    if x.dtype.kind != "f":
        raise call.unsupported("the division of integers")
    out: Array = np.divide(x, y)
    return out


@operation("inverse", "rsqrt", "log")
def with_epsilon(call: Call) -> Array:
    """The functions that add a constant to their argument first."""
    default = {"inverse": 1e-4, "rsqrt": 1e-12, "log": 1e-45}[call.operation.kind]
    x = call.array("x")
    wide = widen(x) + np.float32(call.number("epsilon", default))
    if call.operation.kind == "log":
        return narrow(np.log(wide), x.dtype)
    return narrow(1 / (np.sqrt(wide) if call.operation.kind == "rsqrt" else wide), x.dtype)


@operation("cast")
def cast(call: Call) -> Array:
    """Conversion; floats to integers cut off the fraction."""
    name = call.text("dtype", "")
    if name not in CASTS:
        raise call.unsupported(f"the type {name!r}")
    return narrow(call.array("x"), CASTS[name])


@operation("select")
def select(call: Call) -> Array:
    """``a`` where the condition holds, else ``b``."""
    return np.where(call.array("cond"), call.array("a"), call.array("b"))


@operation("clip")
def clip(call: Call) -> Array:
    """Limit to ``alpha .. beta``."""
    x = call.array("x")
    low, high = (narrow(call.array(name), x.dtype) for name in ("alpha", "beta"))
    return np.minimum(np.maximum(x, low), high)


@operation("relu")
def relu(call: Call) -> Array:
    """``max(x, 0)``."""
    x = call.array("x")
    return np.asarray(np.maximum(x, x.dtype.type(0)))


@operation("leaky_relu", "prelu")
def leaky(call: Call) -> Array:
    """``x`` where positive, else ``alpha * x``; of prelu, one ``alpha`` per channel."""
    x, alpha = call.array("x"), call.array("alpha")
    if call.operation.kind == "prelu":
        alpha = alpha.reshape(-1, *[1] * (x.ndim - 2))
    return np.where(x >= 0, x, x * narrow(alpha, x.dtype))


@operation("elu", "relu6", "softplus", "softsign", "sigmoid", "silu", "gelu", "erf")
def activation(call: Call) -> Array:
    """Activations that are computed in float32 and rounded once."""
    x = call.array("x")
    wide = widen(x)
    kind = call.operation.kind
    if kind == "elu":
        alpha = np.float32(call.number("alpha", 1.0))
        out = np.where(wide > 0, wide, alpha * np.expm1(np.minimum(wide, 0)))
    elif kind == "relu6":
        out = np.clip(wide, 0, 6)
    elif kind == "softplus":
        out = np.logaddexp(wide, 0)
    elif kind == "softsign":
        out = wide / (1 + np.abs(wide))
    elif kind == "sigmoid":
        out = sigmoid(wide)
    elif kind == "silu":
        out = wide * sigmoid(wide)
    elif kind == "erf":
        out = erf(wide)
    else:
        out = _gelu(call, wide)
    return narrow(out, x.dtype)


def _gelu(call: Call, x: Array) -> Array:
    mode = call.text("mode", "EXACT")
    if mode == "EXACT":
        out: Array = 0.5 * x * (1 + erf(x * np.float32(math.sqrt(0.5))))
    elif mode == "TANH_APPROXIMATION":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        out = 0.5 * x * (1 + np.tanh(inner))
    elif mode == "SIGMOID_APPROXIMATION":
        out = x * sigmoid(np.float32(1.702) * x)
    else:
        raise call.unsupported(f"the mode {mode!r}")
    return out
