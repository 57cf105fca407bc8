"""How images are continued at the right and at the bottom to whole windows.

All indices are made of integers, and no branch depends on a length, so that lengths stay dynamic
in a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from scaleport.errors import UsageError

PaddingKind = Literal["reflect", "mirror", "test-script"]
PADDINGS: tuple[str, ...] = get_args(PaddingKind)


def reflected(length: int, padded: int, like: Tensor) -> Tensor:
    """Indices int32[padded] that continue ``0 .. length - 1`` by reflection, however far."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    return _reflect(place, torch.full_like(place, length - 1))


def mirrored(length: int, padded: int, like: Tensor) -> Tensor:
    """Indices int32[padded] that continue ``0 .. length - 1`` backwards, the last one repeated."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    last = _last_of_both(place, length)
    place = torch.remainder(place, last + torch.full_like(place, 1))
    return torch.minimum(place, last - place)


def mirrored_once(length: int, padded: int, like: Tensor) -> Tensor:
    """The same for one mirrored copy, and from there on by reflection of both."""
    place = torch.arange(padded, device=like.device, dtype=torch.int32)
    last = _last_of_both(place, length)
    place = _reflect(place, last)
    return torch.minimum(place, last - place)


def _last_of_both(place: Tensor, length: int) -> Tensor:
    # Between tensors: a converter makes floats of integers that meet Python's numbers.
    last = torch.full_like(place, length - 1)
    return last + last + torch.full_like(place, 1)


def _reflect(place: Tensor, last: Tensor) -> Tensor:
    period = torch.maximum(last + last, torch.full_like(place, 1))
    place = torch.remainder(place, period)
    return torch.minimum(place, period - place)


@dataclass(frozen=True)
class Padding:
    """The windows that an encoder needs, and what continues an image to whole ones.

    Attributes:
        multiple: side of a window in pixels; 1 needs no continuation.
        kind: ``reflect``: the pixels before the last one, backwards, up to the next multiple;
            ``mirror``: all pixels backwards, the last one repeated, up to the next multiple;
            ``test-script``: like ``mirror``, but always beyond the last pixel, by a whole window
            where the size is a multiple already (SwinIR's ``main_test_swinir.py``).
    """

    multiple: int = 1
    kind: PaddingKind = "reflect"

    def __post_init__(self) -> None:
        """Check the name, which comes from a configuration."""
        if self.kind not in PADDINGS:
            raise UsageError(f"padding must be one of {', '.join(PADDINGS)}, got {self.kind!r}")

    def __bool__(self) -> bool:
        """Whether any image is continued."""
        return self.multiple > 1

    def padded(self, length: int) -> int:
        """Length in pixels that an axis is continued to."""
        if self.kind == "test-script":
            return (length // self.multiple + 1) * self.multiple
        return (length + self.multiple - 1) // self.multiple * self.multiple

    def pad(self, x: Tensor) -> Tensor:
        """Continue float[N, C, H, W] to whole windows."""
        rows, cols = (self._index(length, x) for length in (x.shape[2], x.shape[3]))
        return x.index_select(2, rows).index_select(3, cols)

    def _index(self, length: int, like: Tensor) -> Tensor:
        make = {"reflect": reflected, "mirror": mirrored, "test-script": mirrored_once}[self.kind]
        return make(length, self.padded(length), like)
