"""What programs hand over as an image, and the pixels that it stands for.

An array is taken as it is, so everything that would make another picture of it is refused here:
floats that are not in [0, 1], values that are no numbers, axes in another order.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final, TypeAlias

import numpy as np

from scaleport.errors import ImageError, one_line
from scaleport.imaging.convert import Pixels
from scaleport.imaging.reading import Picture, open_picture

ImageLike: TypeAlias = Any
"""An array, a PIL picture, a PyTorch tensor, the path of a file, or an opened picture.

- ``uint8``, ``uint16`` or float arrays [H, W] or [H, W, C] with 1 (gray), 2 (gray and alpha),
  3 (RGB) or 4 (RGB and alpha) channels, or [N, 3, H, W]. Floats are in [0, 1], finite.
- PIL pictures: turned upright as their EXIF says, palettes as the colours they stand for.
- PyTorch tensors on any device, like arrays.
- ``str`` or ``os.PathLike``: an image file.
"""

FLOATS_FROM: Final = -1.0
FLOATS_TO: Final = 2.0
"""Float images are in [0, 1]; resampling leaves a little more, another unit far more."""

_WANTED: Final = "give an array [H, W, C], a PIL picture or the path of a file"
_PIL_MODES: Final = {
    "1": "L",
    "PA": "RGBA",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
}
_PIL_PLAIN: Final = ("L", "LA", "RGB", "RGBA", "F")


def pixels_of(image: ImageLike) -> Pixels | Picture:
    """The pixels of what a program calls an image, or the open file that it names.

    Args:
        image: see :data:`ImageLike`.

    Raises:
        ImageError: if it is none of these, or its values are not those of a picture; the message
            names the call that makes it one.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_picture(os.fspath(image))
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(image, pil.Image):
        array = _of_pil(image)
    elif hasattr(image, "detach") and hasattr(
        image, "cpu"
    ):  # a tensor of PyTorch, which is not imported for this
        array = _of_tensor(image)
    else:
        array = _of_array(image)
    _check_shape(array)
    check_values(array)
    return array


def check_values(values: Pixels) -> None:
    """Refuse floats that are not numbers, or not in the range of a picture.

    Raises:
        ImageError: where a value is NaN or infinite, or beyond :data:`FLOATS_FROM` and
            :data:`FLOATS_TO`.
    """
    if values.dtype.kind != "f" or not values.size:
        return
    check_finite(values)
    low, high = float(values.min()), float(values.max())
    if low < FLOATS_FROM or high > FLOATS_TO:
        raise ImageError(
            f"float pixels are in [0, 1], black to white, but these go from {low:.4g} to "
            f"{high:.4g}; divide them by their range first, e.g. image / 255"
        )


def check_finite(values: Pixels) -> None:
    """Refuse NaN and infinity, which a network would spread over the picture.

    Raises:
        ImageError: if there is one.
    """
    # One pass that needs no mask of the array's size; a sum may overflow, its parts do not.
    with np.errstate(invalid="ignore"):
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            return
    wrong = int(np.count_nonzero(~np.isfinite(values)))
    raise ImageError(
        f"the image holds {wrong} {'value that is' if wrong == 1 else 'values that are'} NaN or "
        "infinite; replace them first, e.g. with numpy.nan_to_num(image)"
    )


def _of_array(image: ImageLike) -> Pixels:
    if isinstance(image, (bytes, bytearray)) or hasattr(image, "read"):
        source = "io.BytesIO(data)" if isinstance(image, (bytes, bytearray)) else "file"
        raise ImageError(
            f"{type(image).__name__} is no image: it holds a file and not its pixels; "
            f"PIL.Image.open({source}) makes a picture of it, or give the path of the file"
        )
    try:
        array = np.asarray(image)
    except Exception as error:  # an object of another library may raise anything
        raise ImageError(
            f"{type(image).__name__} is no image ({one_line(error)}); {_WANTED}"
        ) from error
    if array.ndim == 0 or array.dtype.kind not in "uifb":
        kind = f": its values are {array.dtype}" if isinstance(image, np.ndarray) else ""
        raise ImageError(f"{type(image).__name__} is no image{kind}; {_WANTED}")
    return array


def _of_tensor(image: Any) -> Pixels:
    try:
        plain = image.detach().cpu()
        try:
            array: Pixels = plain.numpy()
        except TypeError:  # numpy has no bfloat16
            array = plain.float().numpy()
    except Exception as error:
        raise ImageError(f"cannot take pixels from this tensor: {one_line(error)}") from error
    return array


def _of_pil(image: Any) -> Pixels:
    import PIL.ImageOps

    try:
        upright = PIL.ImageOps.exif_transpose(image)
        mode = upright.mode
        clear = upright.has_transparency_data
        if mode.startswith("I;16"):
            return np.asarray(upright)
        if mode == "I":
            return _of_integers(np.asarray(upright))
        if mode == "P":
            return np.asarray(upright.convert("RGBA" if clear else "RGB"))
        if mode in ("L", "RGB") and clear:
            # One colour, or one level, of the file counts as transparent.
            return np.asarray(upright.convert("LA" if mode == "L" else "RGBA"))
        if mode in _PIL_MODES:
            return np.asarray(upright.convert(_PIL_MODES[mode]))
        if mode in _PIL_PLAIN:
            return np.asarray(upright)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"cannot take pixels from the PIL picture: {one_line(error)}") from error
    raise ImageError(
        f"a PIL picture of mode {mode} has no RGB values of its own; convert it with its colour "
        "profile (PIL.ImageCms), or with image.convert('RGB') if that does not matter"
    )


def _of_integers(values: Pixels) -> Pixels:
    """Pillow's 32-bit integers, which it also reads 16-bit files as."""
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ImageError(
            "a PIL picture of mode I holds integers beyond the range of 16 bits; scale it to "
            "uint16 first"
        )
    return values.astype(np.uint16)


def _check_shape(array: Pixels) -> None:
    """Say which call turns an array into one that can be taken."""
    if array.dtype.kind == "b":
        raise ImageError("pixels must be uint8, uint16 or float, got bool; use image * uint8(255)")
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise ImageError(
            f"pixels must be uint8, uint16 or float, got {array.dtype}; image.astype(numpy.uint8) "
            "takes values up to 255"
        )
    shape = array.shape
    if array.ndim == 3 and shape[2] not in (1, 2, 3, 4) and shape[0] in (1, 3, 4):
        raise ImageError(
            f"pixels must be [H, W, C], got {list(shape)}; image.transpose(1, 2, 0) makes that of "
            "[C, H, W], and image[None] a batch of it"
        )
    if array.ndim == 4 and shape[1] != 3:
        hint = "image.transpose(0, 3, 1, 2) makes that of [N, H, W, 3]"
        if shape[3] != 3:
            hint = "give pictures of other channels one by one as [H, W, C]"
        raise ImageError(f"a batch must be [N, 3, H, W], got {list(shape)}; {hint}")
