"""Operations that move, copy or create elements."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import ArtifactError
from scaleport.mil.call import Call, operation
from scaleport.mil.ops_elementwise import CASTS


@operation("shape")
def shape(call: Call) -> Array:
    """The lengths as int32, or as int16 where the program asks for that."""
    kind = CASTS.get(call.text("output_dtype", "int32"), CASTS["int32"])
    return np.array(call.array("x").shape, kind)


@operation("reshape")
def reshape(call: Call) -> Array:
    """New shape; -1 is what is left, 0 keeps the length at its place."""
    x = call.array("x")
    target = call.ints("shape")
    return x.reshape([x.shape[i] if d == 0 and i < x.ndim else d for i, d in enumerate(target)])


@operation("reshape_like")
def reshape_like(call: Call) -> Array:
    """Shape of the concatenated reference dimensions."""
    references = call.arrays("ref_tensors")
    begins, ends = call.ints("begins"), call.ints("ends")
    open_ends = call.flags("end_masks", len(references))
    parts: list[int] = []
    for tensor, a, b, last in zip(references, begins, ends, open_ends, strict=True):
        parts += tensor.shape[a : None if last else b]
    return call.array("x").reshape(parts)


@operation("transpose")
def transpose(call: Call) -> Array:
    """Permutation of the dimensions."""
    turned: Array = call.array("x").transpose(call.ints("perm"))
    return turned


@operation("expand_dims")
def expand_dims(call: Call) -> Array:
    """New dimensions of length 1."""
    return np.expand_dims(call.array("x"), tuple(call.ints("axes")))


@operation("squeeze")
def squeeze(call: Call) -> Array:
    """Drop dimensions of length 1, all of them when no axes are given."""
    axes = call.ints("axes", [])
    return np.squeeze(call.array("x"), tuple(axes) if axes else None)


@operation("concat")
def concat(call: Call) -> Array:
    """Join along an existing axis, one after the other or element by element in turn."""
    values, axis = [np.atleast_1d(x) for x in call.arrays("values")], call.integer("axis")
    if not call.flag("interleave", False):
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


@operation("stack")
def stack(call: Call) -> Array:
    """Join along a new axis."""
    return np.stack(call.arrays("values"), call.integer("axis"))


@operation("split")
def split(call: Call) -> tuple[Array, ...]:
    """Cut along an axis into given sizes or into equal parts."""
    x, axis = call.array("x"), call.integer("axis")
    sizes = call.ints("split_sizes", [])
    if not sizes:
        return tuple(np.split(x, call.integer("num_splits"), axis))
    return tuple(np.split(x, np.cumsum(sizes)[:-1].tolist(), axis))


@operation("tile")
def tile(call: Call) -> Array:
    """Repeat along every dimension."""
    return np.tile(call.array("x"), call.ints("reps"))


@operation("reverse")
def reverse(call: Call) -> Array:
    """Reverse the order along axes."""
    axes = call.ints("axes", [])
    return np.flip(call.array("x"), tuple(axes) if axes else None)


@operation("slice_by_index")
def slice_by_index(call: Call) -> Array:
    """``x[begin:end:stride]``; a mask ignores the border, or takes one element and drops it."""
    x = call.array("x")
    begin, end = call.ints("begin"), call.ints("end")
    stride = call.ints("stride", [1] * x.ndim)
    open_begin, open_end = call.flags("begin_mask", x.ndim), call.flags("end_mask", x.ndim)
    single = call.flags("squeeze_mask", x.ndim)
    if len(begin) != x.ndim or len(end) != x.ndim or len(stride) != x.ndim:
        raise ArtifactError(f"{call} does not slice every dimension")
    where: list[int | slice] = []
    for i in range(x.ndim):
        if single[i]:
            where.append(begin[i])
        else:
            first = None if open_begin[i] else begin[i]
            where.append(slice(first, None if open_end[i] else end[i], stride[i]))
    return np.asarray(x[tuple(where)])


@operation("slice_by_size")
def slice_by_size(call: Call) -> Array:
    """``size`` elements from ``begin``; -1 is all that follow."""
    x = call.array("x")
    return x[
        tuple(
            slice(a, None if n == -1 else a + n)
            for a, n in zip(call.ints("begin"), call.ints("size"), strict=True)
        )
    ]


_PAD_MODES: Final = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@operation("pad")
def pad(call: Call) -> Array:
    """Add elements around the last dimensions."""
    x, amounts, mode = call.array("x"), call.ints("pad"), call.text("mode", "constant")
    if mode not in _PAD_MODES:
        raise call.unsupported(f"the mode {mode!r}")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    if mode != "constant":
        return np.pad(x, pairs, mode=_PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]
    value = x.dtype.type(call.number("constant_val", 0.0))
    return np.pad(x, pairs, constant_values=value)


@operation("gather")
def gather(call: Call) -> Array:
    """Take whole slices along an axis."""
    x, indices, axis = call.array("x"), call.array("indices"), call.integer("axis", 0)
    batch = call.integer("batch_dims", 0)
    axis += x.ndim if axis < 0 else 0
    if batch == 0:
        return np.asarray(np.take(x, indices, axis))
    flat = x.reshape(-1, *x.shape[batch:])
    chosen = indices.reshape(-1, *indices.shape[batch:])
    parts = [np.take(a, b, axis - batch) for a, b in zip(flat, chosen, strict=True)]
    return np.stack(parts).reshape(*x.shape[:batch], *parts[0].shape)


@operation("gather_along_axis")
def gather_along_axis(call: Call) -> Array:
    """Take single elements along an axis."""
    indices = call.array("indices").astype(np.int64)
    return np.take_along_axis(call.array("x"), indices, call.integer("axis", 0))


@operation("gather_nd")
def gather_nd(call: Call) -> Array:
    """Take slices by multi-dimensional indices."""
    if call.integer("batch_dims", 0):
        raise call.unsupported("batch_dims")
    return np.asarray(call.array("x")[tuple(np.moveaxis(call.array("indices"), -1, 0))])


@operation("fill")
def fill(call: Call) -> Array:
    """A tensor of one value."""
    value = call.array("value")
    return np.full(call.ints("shape"), value, value.dtype)


@operation("fill_like")
def fill_like(call: Call) -> Array:
    """A tensor of one value, in the shape of another."""
    value = call.array("value")
    return np.full(call.array("ref_tensor").shape, value, value.dtype)


@operation("range_1d")
def range_1d(call: Call) -> Array:
    """``start, start + step, ..`` below ``end``."""
    start = call.array("start")
    count = math.ceil((call.number("end") - start.item()) / call.number("step"))
    return np.asarray(start + np.arange(max(0, count)).astype(start.dtype) * call.array("step"))


@operation("pixel_shuffle")
def pixel_shuffle(call: Call) -> Array:
    """Blocks of channels to blocks of pixels."""
    x, s = call.array("x"), call.integer("upscale_factor")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c // (s * s), s, s, h, w).transpose(0, 1, 4, 2, 5, 3)
    made: Array = blocks.reshape(n, c // (s * s), h * s, w * s)
    return made


@operation("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Array:
    """Blocks of pixels to blocks of channels."""
    x, s = call.array("x"), call.integer("downscale_factor")
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // s, s, w // s, s).transpose(0, 1, 3, 5, 2, 4)
    made: Array = blocks.reshape(n, c * s * s, h // s, w // s)
    return made
