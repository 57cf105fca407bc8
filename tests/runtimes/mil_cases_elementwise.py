"""Elementwise MIL operations beside PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from coremltools.converters.mil.mil import Builder
from mil_inputs import POSITIVE
from torch.nn import functional as F  # noqa: N812

# Name of the case (up to a colon the operation) -> (program, PyTorch), both from the inputs.
CASES = {}


def _unary(source, names, rename=None):
    for name in names:
        CASES[name] = (
            lambda v, name=name: getattr(Builder, name)(x=v[source]),
            lambda t, name=name: getattr(torch, (rename or {}).get(name, name))(t[source]),
        )


_unary("small", ["abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2"])
_unary("small", ["floor", "round", "sign", "sin", "sinh", "square", "tan", "tanh", "sigmoid"])
_unary("small", ["relu", "identity"], {"identity": "clone"})
_unary("positive", ["sqrt"])
for _name in ("add", "sub", "mul", "maximum", "minimum", "real_div", "pow", "floor_div", "mod"):
    _torch = {"real_div": "div", "floor_div": "floor_divide", "mod": "remainder"}.get(_name, _name)
    CASES[_name] = (
        lambda v, n=_name: getattr(Builder, n)(x=v["positive"], y=v["small"]),
        lambda t, n=_torch: getattr(torch, n)(t["positive"], t["small"]),
    )
for _name in ("add", "sub", "mul", "floor_div", "mod", "maximum"):
    _torch = {"floor_div": "floor_divide", "mod": "remainder"}.get(_name, _name)
    CASES[f"{_name}:int32"] = (
        lambda v, n=_name: getattr(Builder, n)(x=v["whole"], y=np.int32(5)),
        lambda t, n=_torch: getattr(torch, n)(t["whole"], torch.tensor(5, dtype=torch.int32)),
    )
for _name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    _names = {"equal": "eq", "not_equal": "ne", "greater_equal": "ge", "less_equal": "le"}
    _torch = _names.get(_name, _name)
    CASES[_name] = (
        lambda v, n=_name: Builder.cast(
            x=getattr(Builder, n)(x=v["whole"], y=np.int32(2)), dtype="int32"
        ),
        lambda t, n=_torch: getattr(torch, n)(t["whole"], 2).int(),
    )
for _name in ("logical_and", "logical_or", "logical_xor"):
    CASES[_name] = (
        lambda v, n=_name: Builder.cast(
            x=getattr(Builder, n)(
                x=Builder.greater(x=v["small"], y=np.float32(0)),
                y=Builder.less(x=v["positive"], y=np.float32(1)),
            ),
            dtype="int32",
        ),
        lambda t, n=_name: getattr(torch, n)(t["small"] > 0, t["positive"] < 1).int(),
    )


CASES |= {
    "logical_not": (
        lambda v: Builder.cast(
            x=Builder.logical_not(x=Builder.greater(x=v["small"], y=np.float32(0))), dtype="int32"
        ),
        lambda t: (~(t["small"] > 0)).int(),
    ),
    "rsqrt": (
        lambda v: Builder.rsqrt(x=v["positive"], epsilon=np.float32(0.25)),
        lambda t: (t["positive"] + 0.25).rsqrt(),
    ),
    "inverse": (
        lambda v: Builder.inverse(x=v["positive"], epsilon=np.float32(0.25)),
        lambda t: 1 / (t["positive"] + 0.25),
    ),
    "log": (
        lambda v: Builder.log(x=v["positive"], epsilon=np.float32(0.25)),
        lambda t: (t["positive"] + 0.25).log(),
    ),
    "cast": (
        lambda v: Builder.cast(x=Builder.mul(x=v["small"], y=np.float32(9)), dtype="int32"),
        lambda t: (t["small"] * 9).int(),
    ),
    "cast:fp16": (
        lambda v: Builder.cast(x=Builder.cast(x=v["small"], dtype="fp16"), dtype="fp32"),
        lambda t: t["small"].half().float(),
    ),
    "select": (
        lambda v: Builder.select(
            cond=Builder.greater(x=v["small"], y=np.float32(0)), a=v["small"], b=v["positive"]
        ),
        lambda t: torch.where(t["small"] > 0, t["small"], t["positive"]),
    ),
    "clip": (
        lambda v: Builder.clip(x=v["small"], alpha=np.float32(-0.3), beta=np.float32(0.2)),
        lambda t: t["small"].clamp(-0.3, 0.2),
    ),
    "leaky_relu": (
        lambda v: Builder.leaky_relu(x=v["small"], alpha=np.float32(0.1)),
        lambda t: F.leaky_relu(t["small"], 0.1),
    ),
    "prelu": (
        lambda v: Builder.prelu(x=v["image"], alpha=POSITIVE),
        lambda t: F.prelu(t["image"], torch.from_numpy(POSITIVE)),
    ),
    "elu": (
        lambda v: Builder.elu(x=v["image"], alpha=np.float32(0.7)),
        lambda t: F.elu(t["image"], 0.7),
    ),
    "relu6": (
        lambda v: Builder.relu6(x=Builder.mul(x=v["image"], y=np.float32(5))),
        lambda t: F.relu6(t["image"] * 5),
    ),
    "softplus": (lambda v: Builder.softplus(x=v["image"]), lambda t: F.softplus(t["image"])),
    "softsign": (lambda v: Builder.softsign(x=v["image"]), lambda t: F.softsign(t["image"])),
    "silu": (lambda v: Builder.silu(x=v["image"]), lambda t: F.silu(t["image"])),
    "gelu:exact": (
        lambda v: Builder.gelu(x=v["image"], mode="EXACT"),
        lambda t: F.gelu(t["image"]),
    ),
    "gelu:tanh": (
        lambda v: Builder.gelu(x=v["image"], mode="TANH_APPROXIMATION"),
        lambda t: F.gelu(t["image"], approximate="tanh"),
    ),
    "gelu:sigmoid": (
        lambda v: Builder.gelu(x=v["image"], mode="SIGMOID_APPROXIMATION"),
        lambda t: t["image"] * torch.sigmoid(1.702 * t["image"]),
    ),
}
