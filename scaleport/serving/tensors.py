"""Requests of the KServe v2 protocol: an image and a scale, and what is wrong with others.

An image is either numbers or a file:

* ``image`` UINT8 ``[H, W, 3]``, or FP32 ``[N, 3, H, W]`` in [0, 1]; the answer ``upscaled`` has the
  same layout and type;
* ``image`` BYTES ``[1]``, a PNG, JPEG or another image file in base64; the answer is a PNG file in
  base64.

With it come ``scale`` FP32 ``[1]`` or ``[2]`` (vertical, horizontal), or ``size`` INT64 ``[2]``
(height, width).
"""

from __future__ import annotations

import base64
import binascii
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import ImageError, ScaleError, UsageError
from scaleport.grid import output_length, parse_scale

_TYPES: Final = {"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64}


@dataclass(frozen=True)
class Tensor:
    """A named tensor of a request or an answer, as the protocol writes it in JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | Array


@dataclass(frozen=True)
class Limits:
    """Most pixels of an image and of a result; larger requests are refused before any work."""

    input_pixels: int = 16_000_000
    output_pixels: int = 64_000_000


@dataclass(frozen=True)
class Wanted:
    """A request that can be run.

    Attributes:
        image: uint8 [H, W, C] or float32 [N, 3, H, W].
        scale: (vertical, horizontal), or None where a size is asked for.
        size: (height, width) of the result, or None.
        file: whether the answer is an image file.
    """

    image: Array
    scale: tuple[float, float] | None
    size: tuple[int, int] | None
    file: bool


def read_request(inputs: Sequence[Tensor], limits: Limits) -> Wanted:
    """Check a request and read its tensors.

    Raises:
        UsageError: if a tensor is missing, unknown, given twice, or of another type or shape.
        ImageError: if the image cannot be decoded or is too large.
        ScaleError: if the scale is not finite and positive, or the result is too large.
    """
    names = [tensor.name for tensor in inputs]
    for name in names:
        if name not in ("image", "scale", "size"):
            raise UsageError(f"unknown input {name[:80]!r}; inputs are image, and scale or size")
        if names.count(name) > 1:
            raise UsageError(f"input {name!r} is given twice")
    given = dict(zip(names, inputs, strict=True))
    if "image" not in given:
        raise UsageError("input 'image' is missing")
    if ("scale" in given) == ("size" in given):
        raise UsageError("give either 'scale' or 'size'")
    image, file = _image(given["image"], limits)
    height, width = image.shape[2:] if image.ndim == 4 else image.shape[:2]
    if "scale" in given:
        scale = _scale(given["scale"])
        size = None
        shape = output_length(height, scale[0]), output_length(width, scale[1])
    else:
        scale, size = None, _size(given["size"])
        shape = size
    count = image.shape[0] if image.ndim == 4 else 1
    if math.prod(shape) * count > limits.output_pixels:
        raise ScaleError(
            f"the result of {shape[0]}x{shape[1]} pixels is over the limit of "
            f"{limits.output_pixels} pixels; ask for a smaller one"
        )
    return Wanted(image, scale, size, file)


def write_answer(result: Array, wanted: Wanted) -> Tensor:
    """The tensor ``upscaled`` of an answer."""
    if wanted.file:
        return Tensor("upscaled", "BYTES", (1,), [base64.b64encode(_png(result)).decode()])
    datatype = "UINT8" if result.dtype == np.uint8 else "FP32"
    return Tensor("upscaled", datatype, result.shape, result)


def _image(tensor: Tensor, limits: Limits) -> tuple[Array, bool]:
    if tensor.datatype == "BYTES":
        return _decoded(tensor, limits), True
    if tensor.datatype not in ("UINT8", "FP32"):
        raise UsageError(
            f"'image' must be UINT8 [H, W, 3], FP32 [N, 3, H, W] or BYTES, got {tensor.datatype}"
        )
    planes = tensor.datatype == "FP32"
    shape = tensor.shape
    channels = shape[1:2] if planes else shape[2:]
    if len(shape) != (4 if planes else 3) or channels != (3,) or min(shape) < 1:
        layout = "FP32 [N, 3, H, W]" if planes else "UINT8 [H, W, 3]"
        raise UsageError(f"'image' must be {layout}, got {tensor.datatype} {list(shape)}")
    if math.prod(shape) // 3 > limits.input_pixels:
        raise ImageError(f"the image is over the limit of {limits.input_pixels} pixels")
    values = _numbers(tensor)
    if planes and not np.isfinite(values).all():
        raise ImageError("'image' holds NaN or infinity")
    return values, False


def _decoded(tensor: Tensor, limits: Limits) -> Array:
    from scaleport.imaging.reading import open_picture

    if tensor.shape not in ((1,), (1, 1)) or len(tensor.data) != 1:
        raise UsageError(f"'image' must hold one file, got shape {list(tensor.shape)}")
    text = tensor.data[0]
    try:
        content = base64.b64decode(text if isinstance(text, bytes) else str(text), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("'image' of type BYTES must be an image file in base64") from None
    with tempfile.TemporaryDirectory(prefix="scaleport-request-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(content)
        try:
            picture = open_picture(path)
            height, width = picture.shape
            if height * width > limits.input_pixels:
                raise ImageError(f"the image is over the limit of {limits.input_pixels} pixels")
            return picture.read(0, 0, height, width)
        except ImageError as error:
            # The name of a temporary file says nothing to a client.
            raise ImageError(str(error).replace(str(path), "the image")) from error


def _png(pixels: Array) -> bytes:
    from scaleport.imaging.files import Image, save_image

    with tempfile.TemporaryDirectory(prefix="scaleport-answer-") as folder:
        path = Path(folder) / "upscaled.png"
        save_image(path, Image(pixels))
        return path.read_bytes()


def _scale(tensor: Tensor) -> tuple[float, float]:
    if tensor.datatype != "FP32" or tensor.shape not in ((1,), (2,)):
        raise UsageError(
            f"'scale' must be FP32 [1] or [2], got {tensor.datatype} {list(tensor.shape)}"
        )
    # JSON carries decimals exactly; in float32, 2.3 would no longer be the 2.3 that was meant.
    values = [float(value) for value in _numbers(tensor, np.float64)]
    return parse_scale(values if len(values) == 2 else values[0])


def _size(tensor: Tensor) -> tuple[int, int]:
    if tensor.datatype != "INT64" or tensor.shape != (2,):
        raise UsageError(f"'size' must be INT64 [2], got {tensor.datatype} {list(tensor.shape)}")
    height, width = (int(value) for value in _numbers(tensor))
    if min(height, width) < 1:
        raise ScaleError(f"'size' must be at least 1x1, got {height}x{width}")
    return height, width


def _numbers(tensor: Tensor, dtype: Any = None) -> Array:
    wanted = np.dtype(dtype or _TYPES[tensor.datatype])
    try:
        values = np.asarray(tensor.data)
        if values.dtype.kind not in "iuf" or values.size != math.prod(tensor.shape):
            raise ValueError
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            if (values < limits.min).any() or (values > limits.max).any():
                raise ValueError
            if values.dtype.kind == "f" and (values != np.floor(values)).any():
                raise ValueError
        return np.ascontiguousarray(values.astype(wanted).reshape(tensor.shape))
    except (ValueError, OverflowError, TypeError):
        raise UsageError(
            f"the data of {tensor.name!r} are not {math.prod(tensor.shape)} numbers of type "
            f"{tensor.datatype}"
        ) from None
