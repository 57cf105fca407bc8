"""Reductions, normalisations, softmax, pooling: accumulated in float32, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.mil.call import Call, narrow, operation, widen

_REDUCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_l1_norm": lambda x, **options: np.sum(np.abs(x), **options),
    "reduce_l2_norm": lambda x, **options: np.sqrt(np.sum(x * x, **options)),
    "reduce_sum_square": lambda x, **options: np.sum(x * x, **options),
}


@operation(*_REDUCTIONS)
def reduce(call: Call) -> Array:
    """Reduce over axes, over all of them when none are given."""
    x = call.array("x")
    axes = call.ints("axes", [])
    out = _REDUCTIONS[call.operation.kind](
        widen(x), axis=tuple(axes) if axes else None, keepdims=call.flag("keep_dims", False)
    )
    return narrow(out, x.dtype)


@operation("reduce_argmax", "reduce_argmin")
def argument(call: Call) -> Array:
    """Index of the first extreme value along an axis."""
    function = np.argmax if call.operation.kind == "reduce_argmax" else np.argmin
    keep = call.flag("keep_dims", False)
    out = function(call.array("x"), axis=call.integer("axis", -1), keepdims=keep)
    return np.asarray(out).astype(np.int32)


@operation("cumsum")
def cumsum(call: Call) -> Array:
    """Running sum."""
    if call.flag("exclusive", False) or call.flag("reverse", False):
        raise call.unsupported("exclusive or reverse sums")
    x = call.array("x")
    return narrow(np.cumsum(widen(x), axis=call.integer("axis", 0)), x.dtype)


@operation("softmax")
def softmax(call: Call) -> Array:
    """Exponentials that sum to one along an axis."""
    x, axis = call.array("x"), call.integer("axis", -1)
    return narrow(_softmax(widen(x), axis), x.dtype)


def _softmax(x: Array, axis: int) -> Array:
    out: Array = np.exp(x - x.max(axis=axis, keepdims=True))
    out /= out.sum(axis=axis, keepdims=True)
    return out


@operation("scaled_dot_product_attention")
def attention(call: Call) -> Array:
    """``softmax(q k^T / sqrt(d) + mask) v``."""
    query, mask = call.array("query"), call.optional("attn_mask")
    scale = np.float32(query.shape[-1] ** -0.5)
    scores = np.matmul(widen(query) * scale, widen(call.array("key")).swapaxes(-1, -2))
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
    return narrow(np.matmul(_softmax(scores, -1), widen(call.array("value"))), query.dtype)


@operation("layer_norm")
def layer_norm(call: Call) -> Array:
    """Zero mean and unit variance over axes, then an affine map."""
    x = call.array("x")
    axes = tuple(axis % x.ndim for axis in call.ints("axes", list(range(x.ndim))))
    gamma, beta = call.optional("gamma"), call.optional("beta")
    shape = [x.shape[i] if i in axes else 1 for i in range(x.ndim)]
    out = _standardise(widen(x), axes, call.number("epsilon", 1e-5))
    if gamma is not None:
        out = out * widen(gamma).reshape(shape)
    if beta is not None:
        out = out + widen(beta).reshape(shape)
    return narrow(out, x.dtype)


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.mean(centred * centred, axis=axes, keepdims=True)
    out: Array = centred / np.sqrt(variance + np.float32(epsilon))
    return out


@operation("instance_norm", "batch_norm")
def channel_norm(call: Call) -> Array:
    """Normalisation per channel, by the image's own or by stored statistics."""
    x = call.array("x")
    wide = widen(x)
    spatial = tuple(range(2, x.ndim))
    gamma, beta = call.optional("gamma"), call.optional("beta")

    def per_channel(value: Array) -> Array:
        return widen(value).reshape(-1, *[1] * len(spatial))

    epsilon = call.number("epsilon", 1e-5)
    if call.operation.kind == "instance_norm":
        out = _standardise(wide, spatial, epsilon)
    else:
        deviation = np.sqrt(per_channel(call.array("variance")) + np.float32(epsilon))
        out = (wide - per_channel(call.array("mean"))) / deviation
    if gamma is not None:
        out = out * per_channel(gamma)
    if beta is not None:
        out = out + per_channel(beta)
    return narrow(out, x.dtype)


@operation("l2_norm")
def l2_norm(call: Call) -> Array:
    """``x / sqrt(sum(x^2) + epsilon)`` over the last three dimensions."""
    x = call.array("x")
    wide = widen(x)
    total = np.sum(wide * wide, axis=(-3, -2, -1), keepdims=True)
    return narrow(wide / np.sqrt(total + np.float32(call.number("epsilon", 1e-6))), x.dtype)


@operation("avg_pool", "max_pool")
def pool(call: Call) -> Array:
    """Mean or maximum over windows of two spatial dimensions."""
    x, size = call.array("x"), call.ints("kernel_sizes")
    kind = call.text("pad_type", "valid")
    if x.ndim != 4 or kind not in ("valid", "custom") or call.flag("ceil_mode", False):
        raise call.unsupported("this shape, padding or ceil_mode")
    strides = call.ints("strides", [1, 1])
    pads = call.ints("pad", [0, 0, 0, 0]) if kind == "custom" else [0, 0, 0, 0]
    pairs = [(0, 0), (0, 0), (pads[0], pads[1]), (pads[2], pads[3])]

    def windows(values: Array, border: float) -> Array:
        padded = np.pad(values, pairs, constant_values=border)
        view = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))
        return view[:, :, :: strides[0], :: strides[1]]

    wide = widen(x)
    if call.operation.kind == "max_pool":
        return narrow(windows(wide, -np.inf).max(axis=(-2, -1)), x.dtype)
    total = windows(wide, 0).sum(axis=(-2, -1))
    if call.flag("exclude_padding_from_average", False):
        counts = windows(np.ones((1, 1, *x.shape[2:]), np.float32), 0).sum(axis=(-2, -1))
    else:
        counts = np.float32(size[0] * size[1])
    return narrow(total / counts, x.dtype)
