"""The image of a view where the network reads it: brought to the device once."""

from __future__ import annotations

from typing import Final

import numpy as np

from scaleport.grid import Grid
from scaleport.imaging.source import Source
from scaleport.runtimes.arrays import Native
from scaleport.runtimes.base import Value
from scaleport.runtimes.stages import Stages

_WHOLE_UP_TO: Final = 1 << 30
"""Bytes of an array of pixels that is brought to a device as a whole."""


class DevicePicture:
    """Planes of regions of an image, for the sessions of a model.

    In host memory they are made region by region. On a device, an array of pixels goes up once, in
    its own type, and regions are cut and converted there; regions of a file go up as they are read.
    Where colour has to be filled in under transparent pixels, that is done on the host, and float
    planes go up.

    Args:
        source: the image.
        stages: the model; its first graph is loaded when the first planes are asked for.
    """

    def __init__(self, source: Source, stages: Stages) -> None:
        self._source = source
        self._stages = stages
        self._whole: Native | None = None

    def planes(self, top: int, left: int, bottom: int, right: int) -> Value:
        """float32[P, 3, rows, columns] of a region."""
        arrays, source = self._stages.arrays, self._source
        if arrays.on_host:
            return source.planes(top, left, bottom, right)
        pixels: Native
        array, batch = source.array, source.layout is None
        integers = batch and array is not None and array.dtype.kind == "u"
        if source.filled or integers:
            return arrays.wrap(arrays.upload(source.planes(top, left, bottom, right)))
        if array is not None and array.nbytes <= _WHOLE_UP_TO:
            if self._whole is None:
                self._whole = arrays.upload(np.ascontiguousarray(array))
            pixels = (
                self._whole[:, :, top:bottom, left:right]
                if batch
                else self._whole[top:bottom, left:right]
            )
        else:
            region = source.pixels(top, left, bottom, right)
            pixels = arrays.upload(np.ascontiguousarray(region))
        planes = arrays.planes(pixels, source.layout)
        return arrays.wrap(planes if source.opacity is None else planes[:1])

    def settled(self, planes: Native, part: Grid) -> Native:
        """What a network made of a part of the output, with alpha exact where it is flat."""
        known = self._source.flat_alpha(part) if len(planes) == 2 else None
        return planes if known is None else self._stages.arrays.settled(planes, *known)
