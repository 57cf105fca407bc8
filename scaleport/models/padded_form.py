"""The deploy form of networks whose encoder works on whole windows.

Published networks of windows continue the image, run encoder and upsampler, and only then cut off
what was continued: pixels beside the cut have seen it. A lattice network's features are therefore
those of the continued image (dimensions ``H8`` and ``W8`` for windows of 8), and encode hands on
which of their rows and columns are the image's own; render cuts its pixels. A query network's
features are cut in encode, as its decoder finds them by their place in the image.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import torch
from torch import Tensor, nn

from scaleport.errors import UsageError
from scaleport.models.base import DeployForm, Padding, Stage
from scaleport.models.stages import EncodeStage
from scaleport.tensor import TensorSpec

KEPT = (TensorSpec("kept_rows", "float32", ("H",)), TensorSpec("kept_cols", "float32", ("W",)))
"""Rows and columns of the continued features that are the image's: whole numbers as floats."""


def padded_form(form: DeployForm, padding: Padding, lattice: bool) -> DeployForm:
    """A deploy form whose encode stage continues images to whole windows.

    Args:
        form: the form for images of whole windows; its encode module is changed.
        padding: of the encoder.
        lattice: whether pixels are cut, by render; else features are, by encode.

    Raises:
        UsageError: if the encode stage is not an :class:`EncodeStage`.
    """
    encode = form.encode
    if not isinstance(encode.module, EncodeStage):
        raise UsageError(
            "an encoder of windows needs an upsampler whose encode stage is an EncodeStage"
        )
    encode.module.padding = padding
    encode.module.keeps_padding = lattice
    if not lattice:
        return form
    outputs = tuple(_continued(port, padding) for port in encode.outputs)
    render = None if form.render is None else _cut(form.render, padding, None)
    return replace(
        form,
        encode=replace(encode, outputs=(*outputs, *KEPT)),
        render=render,
        bound={scale: _cut(stage, padding, scale) for scale, stage in form.bound.items()},
    )


def _continued(port: TensorSpec, padding: Padding) -> TensorSpec:
    names = {"H": f"H{padding.multiple}", "W": f"W{padding.multiple}"}
    shape = tuple(names.get(size, size) if isinstance(size, str) else size for size in port.shape)
    return msgspec.structs.replace(port, shape=shape)


def _cut(stage: Stage, padding: Padding, scale: int | None) -> Stage:
    inputs = tuple(_continued(port, padding) for port in stage.inputs)
    return replace(
        stage,
        module=CutRender(stage, scale),
        inputs=(*KEPT, *inputs),
        float32_parts=stage.float32_parts,
    )


class CutRender(nn.Module):
    """A render stage of continued features, without the pixels of what was continued."""

    def __init__(self, stage: Stage, scale: int | None) -> None:
        super().__init__()
        self.whole = stage.module
        self.scale = scale
        self._height = _place(stage, "H")
        self._width = _place(stage, "W")
        self._scale = None if scale is not None else _place(stage, "S")

    def forward(self, kept_rows: Tensor, kept_cols: Tensor, *inputs: Tensor) -> Tensor:
        """Map float32[H], float32[W] and the stage's inputs to float32[N, 3, s * H, s * W]."""
        out: Tensor = self.whole(*inputs)

        def length(place: tuple[int, int]) -> int:
            return inputs[place[0]].shape[place[1]]

        s = self.scale if self._scale is None else length(self._scale)
        assert s is not None
        planes, down, across = out.shape[0] * 3, length(self._height), length(self._width)
        height, width = kept_rows.shape[0], kept_cols.shape[0]
        # An LR row or column at a time: these are copies of whole blocks.
        out = out.reshape(planes, down, s, across * s)
        out = out.index_select(1, kept_rows.to(torch.int32))
        out = out.reshape(planes * height * s, across, s)
        out = out.index_select(1, kept_cols.to(torch.int32))
        return out.reshape(-1, 3, height * s, width * s)


def _place(stage: Stage, name: str) -> tuple[int, int]:
    """The first input with a dimension of a name, and which dimension that is."""
    for number, port in enumerate(stage.inputs):
        if name in port.shape:
            return number, port.shape.index(name)
    raise UsageError(f"stage {stage.name!r} reads nothing of size {name}")
