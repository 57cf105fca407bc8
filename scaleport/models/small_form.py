"""Stages for pictures that are smaller than the tensors of a graph of fixed shape.

A graph of fixed shape takes crops of one size. A picture that is smaller fills the top left corner
of such a crop. Continuing it with any pixels would change what convolutions compute near its right
and bottom border: they see zeros there, layer by layer. Here they do: whatever pads with zeros
reads zeros outside of the picture too, and everything else reads the picture's border continued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from scaleport.bundle.manifest import SMALL
from scaleport.grid import Grid, in_longer
from scaleport.models.base import Stage, listed
from scaleport.tensor import TensorSpec

PLACES: Final = (TensorSpec("rows", "int32", ("H",)), TensorSpec("cols", "int32", ("W",)))
"""The picture's row and column that each row and column of the tensors shows: ``min(i, n - 1)``."""

_EXACT: Final = 1e-9
"""Largest difference in float64 to the stage itself, relative to its largest value or 1."""
_TRIAL: Final = (23, 26)
_PICTURE: Final = (17, 15)
_OUTPUT: Final = (46, 29)


class _ZerosOutside(TorchFunctionMode):
    """Zeros outside of the picture, for whatever reads zeros beyond the border of a tensor."""

    def __init__(self, inside: Tensor) -> None:
        super().__init__()
        self._inside = inside

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func in _READERS and args and isinstance(args[0], Tensor) and args[0].dim() == 4:
            args = (self._masked(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _masked(self, x: Tensor) -> Tensor:
        inside = self._inside
        return x * inside.to(x.dtype)


_READERS: Final[tuple[Callable[..., Any], ...]] = (
    torch.conv2d,
    functional.conv2d,
    functional.pad,
    functional.unfold,
)


class SmallForm(nn.Module):
    """A stage whose picture fills the top left corner of its tensors.

    Args:
        stage: the stage.
        image: whether its first input is the picture itself, which is then continued.
    """

    def __init__(self, stage: Stage, image: bool) -> None:
        super().__init__()
        self.whole = stage.module
        self.image = image
        self._axes = [
            (port.shape.index("H"), port.shape.index("W"))
            if {"H", "W"} <= set(port.shape)
            else None
            for port in stage.outputs
        ]

    def forward(
        self,
        rows: Tensor,
        cols: Tensor,
        first: Tensor,
        second: Tensor | None = None,
        third: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Map int32[H], int32[W] and the stage's inputs to the stage's outputs."""
        down = rows == torch.arange(rows.shape[0], device=rows.device, dtype=torch.int32)
        across = cols == torch.arange(cols.shape[0], device=cols.device, dtype=torch.int32)
        inside = down.to(torch.float32)[:, None] * across.to(torch.float32)[None, :]
        if self.image:
            first = first.index_select(2, rows).index_select(3, cols)
        inputs = [value for value in (first, second, third) if value is not None]
        with _ZerosOutside(inside[None, None]):
            result = self.whole(*inputs)
        parts = listed(result)
        made = tuple(
            part if axes is None else part.index_select(axes[0], rows).index_select(axes[1], cols)
            for part, axes in zip(parts, self._axes, strict=True)
        )
        return made[0] if isinstance(result, Tensor) else made


def small_form(stage: Stage) -> Stage:
    """The stage ``NAME_small``: the same function of a picture in the corner of larger tensors.

    Its inputs begin with :data:`PLACES`. Features of the picture's border are continued, so that a
    decoder that looks past the border finds what it finds at the end of its tensors.
    """
    named = [port for port in stage.inputs if port.name == "image"]
    return replace(
        stage,
        name=f"{stage.name}{SMALL}",
        module=SmallForm(stage, image=bool(named)).eval(),
        inputs=(*PLACES, *stage.inputs),
    )


def places(length: int, inside: int) -> Tensor:
    """int32[length]: which of ``inside`` samples each sample of a longer axis shows."""
    return torch.arange(length, dtype=torch.int32).clamp(max=inside - 1)


def is_exact(encode: Stage, renders: tuple[Stage, ...] = (), decoder: Stage | None = None) -> bool:
    """Whether the small forms of a network compute what its stages compute of the picture alone.

    They do where pixels meet only in convolutions that pad with zeros, and a decoder looks at the
    LR pixels around a position, not further. Tried on noise.

    Args:
        encode: the encode stage of a deploy form in float64.
        renders: stages of integer scales, which read its outputs.
        decoder: the stage that renders a query network at any scale, as it is.
    """
    (high, wide), (height, width) = _TRIAL, _PICTURE
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64)
    # Brighter to the right, so that an average over more than the picture is another one.
    image = image * torch.linspace(0.1, 1, width, dtype=torch.float64)
    noise = torch.rand(1, 3, high, wide, generator=generator, dtype=torch.float64)
    noise[:, :, :height, :width] = image
    rows, cols = places(high, height), places(wide, width)
    try:
        with torch.no_grad():
            wanted = listed(encode.module(image))
            found = listed(small_form(encode).module(rows, cols, noise))
            if not all(map(_same, encode.outputs, wanted, found)):
                return False
            for stage in renders:
                pixels = listed(stage.module(*wanted))[0]
                large = listed(small_form(stage).module(rows, cols, *found))[0]
                large = large[:, :, : pixels.shape[2], : pixels.shape[3]]
                if not _near(pixels, large):
                    return False
            if decoder is not None:
                return _decodes(decoder, wanted, found)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False  # a stage that has no such form: the caller says so
    return True


def _decodes(decoder: Stage, wanted: list[Tensor], found: list[Tensor]) -> bool:
    grid = Grid.from_size(*_PICTURE, *_OUTPUT)
    feeds = grid.feeds()
    moved = dict(feeds)
    for name, inside, length in zip(("row_index", "col_index"), _PICTURE, _TRIAL, strict=True):
        moved[name] = in_longer(feeds[name].astype("int32"), inside, length)
    ports = [port.name for port in decoder.inputs[len(wanted) :]]
    pixels, large = (
        decoder.module(*features, *(torch.from_numpy(given[name]) for name in ports))
        for features, given in ((wanted, feeds), (found, moved))
    )
    return _near(pixels, large)


def _same(port: TensorSpec, wanted: Tensor, found: Tensor) -> bool:
    if not {"H", "W"} <= set(port.shape):
        return False
    index = [
        slice(None, length) if size in ("H", "W") else slice(None)
        for size, length in zip(port.shape, wanted.shape, strict=True)
    ]
    return _near(wanted, found[tuple(index)])


def _near(wanted: Tensor, found: Tensor) -> bool:
    bound = _EXACT * max(1.0, float(wanted.abs().max()))
    return wanted.shape == found.shape and float((wanted - found).abs().max()) <= bound
