"""Integrated positional encoding of an output pixel's square (arXiv 2112.05756)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from scaleport.errors import UsageError

Unit = Literal["half", "cell"]
UNITS: tuple[str, ...] = get_args(Unit)


def check_encoding(bands: int, radius_unit: str) -> None:
    """Refuse options that are no encoding.

    Raises:
        UsageError: if there are not 1 to 16 bands, or the unit is unknown.
    """
    if not 1 <= bands <= 16:
        raise UsageError(f"an integrated encoding has 1 to 16 bands, got {bands}")
    if radius_unit not in UNITS:
        raise UsageError(f"radius_unit is {' or '.join(UNITS)}, got {radius_unit!r}")


def half_turns_to_radians(half_turns: Tensor) -> Tensor:
    """Radians in about [-pi, pi] of an angle in half turns.

    Whole turns are taken off before the multiplication by pi, without rounding: the result of the
    subtraction is a multiple of its operand's last bit and no larger. A sine of the whole angle
    would be left to each backend's own argument reduction.
    """
    return (half_turns - 2 * torch.floor(half_turns * 0.5 + 0.5)) * math.pi


def axis_code(
    offset: Tensor, distance: Tensor, scale: Tensor, bands: int, radius_unit: str
) -> Tensor:
    """Code of the side of an output pixel along one axis.

    With ``c`` the pixel's centre seen from an LR pixel and ``r`` half its side, the means of
    ``sin(2^l pi x)`` and ``cos(2^l pi x)`` over ``c - r .. c + r``::

        sin(2^l pi c) S_l,  cos(2^l pi c) S_l,  S_l = sin(2^l pi r) / (2^l pi r)

    In ``half`` units one LR pixel is 1 unit (its own square reaches from -1/2 to 1/2) and
    ``r = 1 / (2 s)``; in ``cell`` units it is 2 units, as in LIIF, and ``r = 1 / s``. In ``cell``
    units the code has a period of one LR pixel, so that the four neighbours of a query are all
    given the same code; in ``half`` units the lowest band tells them apart.

    Args:
        offset: float[...], the centre's distance from its index, in LR pixels.
        distance: int[...], the index minus the LR pixel that looks: 0, -1 or 1.
        scale: float, broadcastable to ``offset``: scale of this axis.
        bands: number L of octaves.
        radius_unit: ``half`` or ``cell``.

    Returns:
        float[..., 2 L]: L sines, then L cosines, lowest band first.
    """
    turns = 1 if radius_unit == "half" else 2
    powers = torch.tensor(
        [float(turns << band) for band in range(bands)], dtype=offset.dtype, device=offset.device
    )
    # A whole LR pixel is a half turn of the lowest band in half units and whole turns otherwise:
    # it is a sign and never rounds the offset.
    angle = half_turns_to_radians(offset[..., None] * powers)
    reach = (0.5 / scale)[..., None] * powers
    damping = torch.sin(half_turns_to_radians(reach)) / (reach * math.pi)
    if turns == 1:
        odd = (distance * distance).to(offset.dtype)[..., None]
        lowest = torch.tensor([2.0] + [0.0] * (bands - 1), dtype=offset.dtype, device=offset.device)
        damping = damping * (1 - odd * lowest)
    return torch.cat([angle.sin() * damping, angle.cos() * damping], dim=-1)
