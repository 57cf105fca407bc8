"""Convolutions and matrix products: accumulated in float32, rounded once."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.mil.call import Call, narrow, operation, widen

_BAND_BYTES: Final = 1 << 20
"""Size of the patches that are copied at a time: about what stays in a processor's cache."""


@operation("linear")
def linear(call: Call) -> Array:
    """``x @ weight.T + bias`` over the last dimension."""
    x, weight = call.array("x"), widen(call.array("weight"))
    # One large product: numpy would make one small product per row of pixels.
    out = np.matmul(widen(x).reshape(-1, weight.shape[1]), weight.T)
    bias = call.optional("bias")
    if bias is not None:
        out += widen(bias)
    return narrow(out, x.dtype).reshape(*x.shape[:-1], weight.shape[0])


@operation("matmul")
def matmul(call: Call) -> Array:
    """Batched product, either factor transposed if asked."""
    x, y = call.array("x"), call.array("y")
    a, b = widen(x), widen(y)
    if call.flag("transpose_x", False) and a.ndim > 1:
        a = a.swapaxes(-1, -2)
    if call.flag("transpose_y", False) and b.ndim > 1:
        b = b.swapaxes(-1, -2)
    if b.ndim == 2 and a.ndim > 2:
        out = np.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    else:
        out = np.matmul(a, b)
    return narrow(out, x.dtype)


@operation("einsum")
def einsum(call: Call) -> Array:
    """Sum of products by an equation."""
    values = call.arrays("values")
    out = np.einsum(call.text("equation", ""), *map(widen, values), optimize=True)
    return narrow(out, values[0].dtype)


@operation("constexpr_affine_dequantize")
def constexpr_affine_dequantize(call: Call) -> Array:
    """A stored weight: ``scale * (quantized_data - zero_point)`` along ``axis``."""
    data, scale = call.array("quantized_data"), call.array("scale")
    zero, axis = call.array("zero_point"), call.integer("axis", 0)
    shape = [1] * data.ndim
    if scale.ndim or zero.ndim:
        shape[axis] = -1
    small = data.astype(np.int32) - zero.astype(np.int32).reshape(shape if zero.ndim else ())
    wide = small.astype(np.float32) * widen(scale).reshape(shape if scale.ndim else ())
    return narrow(wide, scale.dtype)


@operation("conv")
def conv(call: Call) -> Array:
    """Convolution over one or two spatial dimensions, grouped and dilated if asked."""
    x, weight, bias = call.array("x"), call.array("weight"), call.optional("bias")
    spatial = x.ndim - 2
    if spatial not in (1, 2):
        raise call.unsupported(f"{spatial} spatial dimensions")
    strides = call.ints("strides", [1] * spatial)
    dilations = call.ints("dilations", [1] * spatial)
    kernel = weight.shape[2:]
    pads = _padding(call, x.shape[2:], kernel, strides, dilations)
    wide, wide_weight = widen(x), widen(weight)
    if spatial == 1:
        wide, wide_weight = wide[:, :, None], wide_weight[:, :, None]
        strides, dilations, pads = [1, *strides], [1, *dilations], [(0, 0), *pads]
    if any(amount for pair in pads for amount in pair):
        wide = np.pad(wide, [(0, 0), (0, 0), *pads])
    out = _conv2d(wide, wide_weight, strides, dilations, call.integer("groups", 1))
    if bias is not None:
        out += widen(bias)[:, None, None]
    return narrow(out[:, :, 0] if spatial == 1 else out, x.dtype)


def _padding(
    call: Call,
    lengths: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[tuple[int, int]]:
    kind = call.text("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(lengths)
    if kind == "custom":
        amounts = call.ints("pad")
        return list(zip(amounts[::2], amounts[1::2], strict=True))
    if kind not in ("same", "same_lower"):
        raise call.unsupported(f"the padding {kind!r}")
    pairs = []
    for n, k, s, d in zip(lengths, kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n)
        less, more = total // 2, total - total // 2
        pairs.append((less, more) if kind == "same" else (more, less))
    return pairs


def _conv2d(
    x: Array, weight: Array, strides: list[int], dilations: list[int], groups: int
) -> Array:
    """Valid convolution as matrix products over bands of output rows."""
    n, channels = x.shape[:2]
    outputs, _, ky, kx = weight.shape
    spread = ((ky - 1) * dilations[0] + 1, (kx - 1) * dilations[1] + 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, spread, axis=(2, 3))
    # [N, rows, columns, ..] windows as [N, channels, ky, kx, rows, columns], a view.
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    windows = windows.transpose(0, 1, 4, 5, 2, 3)
    rows, cols = windows.shape[4:]
    depth = channels * ky * kx
    matrix = weight.reshape(groups, outputs // groups, depth // groups)
    out = np.empty((n, outputs, rows, cols), np.result_type(x, weight))
    band = max(1, min(rows, _BAND_BYTES // max(1, depth * cols * x.itemsize)))
    for image in range(n):
        for top in range(0, rows, band):
            part = windows[image, ..., top : top + band, :]
            patches = part.reshape(groups, depth // groups, -1)
            product = np.matmul(matrix, patches)
            out[image, :, top : top + band] = product.reshape(outputs, -1, cols)
    return out


@operation("conv_transpose")
def conv_transpose(call: Call) -> Array:
    """Transposed 2-D convolution: every input pixel adds its scaled kernel to the output."""
    x, weight, bias = call.array("x"), widen(call.array("weight")), call.optional("bias")
    if x.ndim != 4 or call.text("pad_type", "valid") not in ("valid", "custom"):
        raise call.unsupported("this shape or padding")
    sy, sx = call.ints("strides", [1, 1])
    dy, dx = call.ints("dilations", [1, 1])
    top, bottom, left, right = call.ints("pad", [0, 0, 0, 0])
    groups = call.integer("groups", 1)
    n, channels, h, w = x.shape
    per_group, ky, kx = weight.shape[1:]
    full = ((h - 1) * sy + (ky - 1) * dy + 1, (w - 1) * sx + (kx - 1) * dx + 1)
    height, width = call.ints("output_shape", [full[0] - top - bottom, full[1] - left - right])[-2:]
    extent = (max(full[0], top + height), max(full[1], left + width))
    canvas = np.zeros((n, groups * per_group, *extent), np.float32)
    pixels = widen(x).reshape(n, groups, channels // groups, h * w)
    taps = weight.reshape(groups, channels // groups, per_group, ky, kx)
    for i in range(ky):
        for j in range(kx):
            product = np.matmul(taps[..., i, j].swapaxes(1, 2), pixels)
            rows = slice(i * dy, i * dy + (h - 1) * sy + 1, sy)
            cols = slice(j * dx, j * dx + (w - 1) * sx + 1, sx)
            canvas[:, :, rows, cols] += product.reshape(n, groups * per_group, h, w)
    out = canvas[:, :, top : top + height, left : left + width]
    if bias is not None:
        out = out + widen(bias)[:, None, None]
    return narrow(out, x.dtype)
