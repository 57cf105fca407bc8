"""Operations that read images between their pixels."""

from __future__ import annotations

import math

import numpy as np

from scaleport.aliases import Array
from scaleport.mil.call import Call, narrow, operation, widen


def _positions(mode: str, n: int, N: int) -> Array | None:
    """Where the N output samples of an axis lie, in input samples; None for an unknown mode."""
    i = np.arange(N, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if N == 1:
            return np.array([(n - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        return i * ((n - 1) / (N - 1))
    if mode == "UNALIGN_CORNERS":
        return np.clip((i + 0.5) * (n / N) - 0.5, 0, n - 1)
    if mode == "ASYMMETRIC":
        return np.minimum(i * (n / N), n - 1)
    return None


def _interpolate(x: Array, axis: int, at: Array) -> Array:
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = (at - low).astype(np.float32).reshape(shape)
    out: Array = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return out


@operation("upsample_bilinear", "resize_bilinear")
def bilinear(call: Call) -> Array:
    """Separable linear interpolation of the last two dimensions."""
    x = call.array("x")
    h, w = x.shape[-2:]
    if call.operation.kind == "resize_bilinear":
        mode = call.text("sampling_mode", "DEFAULT")
        height, width = call.integer("target_size_height", 1), call.integer("target_size_width", 1)
    else:
        align = call.flag("align_corners", True)
        half = call.flag("half_pixel_centers", not align)
        mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half else "ASYMMETRIC"
        height = math.floor(h * call.number("scale_factor_height", 1.0))
        width = math.floor(w * call.number("scale_factor_width", 1.0))
    rows, cols = _positions(mode, h, height), _positions(mode, w, width)
    if rows is None or cols is None:
        raise call.unsupported(f"the mode {mode!r}")
    out = _interpolate(_interpolate(widen(x), x.ndim - 2, rows), x.ndim - 1, cols)
    return narrow(out, x.dtype)


@operation("upsample_nearest_neighbor", "resize_nearest_neighbor")
def nearest(call: Call) -> Array:
    """Repetition of pixels in the last two dimensions."""
    x = call.array("x")
    h, w = x.shape[-2:]
    if call.operation.kind == "resize_nearest_neighbor":
        height, width = call.integer("target_size_height"), call.integer("target_size_width")
    else:
        height = math.floor(h * call.number("scale_factor_height", 1.0))
        width = math.floor(w * call.number("scale_factor_width", 1.0))
    rows = np.arange(height) * h // height
    return x[..., rows[:, None], np.arange(width) * w // width]


@operation("resample")
def resample(call: Call) -> Array:
    """Values of an image at given coordinates (x, y)."""
    x, coordinates = call.array("x"), call.array("coordinates")
    mode = call.text("coordinates_mode", "")
    sampling, padding = call.text("sampling_mode", ""), call.text("padding_mode", "")
    lengths: Array = np.array([x.shape[3], x.shape[2]], np.float32)
    at: Array = coordinates.astype(np.float32)
    if mode.startswith("normalized"):
        if mode.endswith("minus_one_to_one"):
            at = (at + 1) / 2
        at = at * (lengths - 1) if call.flag("align_corners", True) else at * lengths - 0.5
    elif mode != "unnormalized":
        raise call.unsupported(f"the coordinates {mode!r}")
    if sampling not in ("bilinear", "nearest"):
        raise call.unsupported(f"the sampling {sampling!r}")
    at = _fold(call, at, lengths, padding)
    fill = call.number("padding_value", 0.0) if padding == "constant" else None
    wide = widen(x)
    if sampling == "nearest":
        return narrow(_pick(wide, np.rint(at).astype(np.int64), fill), x.dtype)
    low = np.floor(at)
    weight = at - low
    corner = low.astype(np.int64)
    out = np.zeros((), np.float32)
    for step_y in (0, 1):
        for step_x in (0, 1):
            wx = weight[..., 0] if step_x else 1 - weight[..., 0]
            wy = weight[..., 1] if step_y else 1 - weight[..., 1]
            out = out + _pick(wide, corner + np.array([step_x, step_y]), fill) * (wx * wy)[:, None]
    return narrow(out, x.dtype)


def _fold(call: Call, at: Array, lengths: Array, padding: str) -> Array:
    """Bring coordinates beyond the border back by the padding mode."""
    if padding == "constant":
        # Anything more than a pixel outside reads nothing; keep it in the range of an integer.
        return np.clip(at, -2, lengths + 1)
    if padding == "border":
        return np.clip(at, 0, lengths - 1)
    if padding == "reflection":
        period = np.maximum(2 * (lengths - 1), 1)
        return np.asarray(np.abs((at + lengths - 1) % period - (lengths - 1)))
    if padding == "symmetric":
        folded = np.abs((at + 0.5 + lengths) % (2 * lengths) - lengths) - 0.5
        return np.asarray(np.clip(folded, 0, lengths - 1))
    raise call.unsupported(f"the padding {padding!r}")


def _pick(x: Array, at: Array, fill: float | None) -> Array:
    """Pixels [N, C, U, V] at whole coordinates [N, U, V, 2]; ``fill`` outside, or the nearest."""
    col = np.clip(at[..., 0], 0, x.shape[3] - 1)
    row = np.clip(at[..., 1], 0, x.shape[2] - 1)
    image = np.arange(x.shape[0])[:, None, None]
    out: Array = x[image, :, row, col].transpose(0, 3, 1, 2)
    if fill is not None:
        inside = (col == at[..., 0]) & (row == at[..., 1])
        out = np.where(inside[:, None], out, np.float32(fill))
    return out
