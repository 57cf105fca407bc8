"""Evaluation protocols of published tables, by name.

They differ in how LR is made, in which pixels count and in how these are compared, enough to move
a score by some tenths of a decibel. All crop HR from the top left to ``round(floor(n / s) * s)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from scaleport.aliases import Array, Uint8Array
from scaleport.errors import ImageError, UsageError
from scaleport.grid import output_length
from scaleport.imaging.resample import imresize
from scaleport.validation.metrics import luma

# arXiv 2012.09161 weighs colours so, on differences: there is no offset.
_GRAY = np.array([65.738, 129.057, 25.064]) / 256


@dataclass(frozen=True)
class Protocol:
    """How a score is measured.

    Attributes:
        name: its name on the command line.
        summary: one line about it.
        planes: what is compared: luma of BT.601 in studio range, the weighted sum of colours that
            LIIF uses, or all three colours.
        eight_bits: whether results are rounded to 8 bits first, as files would be.
        gray_is_luma: whether a single-channel file counts as luma already; else as three equal
            colours.
        extra_border: pixels left out on each side beyond ``ceil(scale)``.
        matlab_scales: scales at which LR is made as MATLAB's ``imresize`` makes it, at others as
            Pillow's bicubic; None for MATLAB's at every scale.
    """

    name: str
    summary: str
    planes: Literal["luma", "gray", "rgb"]
    eight_bits: bool
    gray_is_luma: bool
    extra_border: int = 0
    matlab_scales: tuple[int, ...] | None = None

    def taken(self, image: Uint8Array) -> Uint8Array:
        """A decoded image as this protocol takes it: uint8 [H, W, 3], or [H, W] if gray is luma."""
        if image.ndim == 2 and not self.gray_is_luma:
            return np.repeat(image[..., None], 3, axis=2)
        return image

    def pair(self, image: Uint8Array, scale: float) -> tuple[Uint8Array, Uint8Array]:
        """LR of ``floor(size / scale)`` pixels, and HR cropped from the top left to match it.

        Raises:
            ImageError: if the image has fewer than ``scale`` pixels on a side.
        """
        height, width = (math.floor(side / scale + 1e-9) for side in image.shape[:2])
        if min(height, width) < 1:
            raise ImageError(f"an image of {image.shape[:2]} pixels is too small for x{scale:g}")
        hr = image[: output_length(height, scale), : output_length(width, scale)]
        if self.matlab_scales is None or scale in self.matlab_scales:
            return imresize(hr, height, width, round_passes=True).astype(np.uint8), hr
        size = (width, height)
        return np.asarray(Image.fromarray(hr).resize(size, Image.Resampling.BICUBIC)), hr

    def border(self, scale: float) -> int:
        """Uint8Array left out on each side."""
        return math.ceil(scale) + self.extra_border

    def compared(self, image: Array, scale: float) -> npt.NDArray[np.float64]:
        """What a metric reads of an image with values 0 .. 255: float64[h, w] or [h, w, 3].

        Raises:
            ImageError: if nothing is left within the border.
        """
        border = self.border(scale)
        height, width = image.shape[:2]
        if 2 * border >= min(height, width):
            raise ImageError(f"a border of {border} leaves nothing of {height}x{width} pixels")
        image = np.asarray(image, np.float64)[border : height - border, border : width - border]
        image = np.clip(np.floor(image + 0.5) if self.eight_bits else image, 0, 255)
        if image.ndim == 2 or self.planes == "rgb":
            return image
        if self.planes == "luma":
            return luma(image)
        gray: npt.NDArray[np.float64] = image @ _GRAY
        return gray


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "basicsr-y",
            "luma of 8-bit images, border of the scale, LR of MATLAB: most published tables",
            planes="luma",
            eight_bits=True,
            gray_is_luma=True,
        ),
        Protocol(
            "liif-benchmark-y",
            "gray of unrounded results, border of the scale: benchmark tables since LIIF",
            planes="gray",
            eight_bits=False,
            gray_is_luma=False,
            matlab_scales=(2, 3, 4),
        ),
        Protocol(
            "liif-div2k-rgb",
            "RGB of unrounded results, border of the scale + 6: DIV2K tables since LIIF",
            planes="rgb",
            eight_bits=False,
            gray_is_luma=False,
            extra_border=6,
            matlab_scales=(2, 3, 4),
        ),
    )
}
"""All of them, by name. ``basicsr-y`` is that of BasicSR, the others those of arXiv 2012.09161."""


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UsageError: if there is none; the message lists the names there are.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise UsageError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}") from None
