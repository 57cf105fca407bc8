"""The selective scan in a form that graphs can hold, at any length.

Tokens are cut into lanes of equal length. All lanes advance side by side from zero states; the
states that they end with are carried from lane to lane; then all lanes advance once more, from the
states that enter them. These steps are operators of their own: a trace records one node each, and
an export writes ONNX ``Scan`` for them. That takes twice the arithmetic of one sequential run, in
``2 * lane + tokens / lane`` steps, and keeps no state of any token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from scaleport.models.layers import count_windows, widened

LANE = 64
"""Tokens of a lane where the caller knows no better length."""


@torch.library.custom_op(
    "scaleport::lane_ends",
    mutates_args=(),
    schema="(Tensor state, Tensor delta, Tensor driven, Tensor drive, Tensor decay) -> Tensor",
)
def lane_ends(state: Tensor, delta: Tensor, driven: Tensor, drive: Tensor, decay: Tensor) -> Tensor:
    """Run ``h = exp(delta A) h + driven B`` over the first dimension, lane by lane.

    Args:
        state: h at the start, float32[K, D, S].
        delta: float32[T, K, D].
        driven: delta times the input, float32[T, K, D].
        drive: B, float32[T, K, S].
        decay: A, float32[D, S].

    Returns:
        h at the end, float32[K, D, S].
    """
    state = state.clone()
    for step, value, b in zip(delta, driven, drive, strict=True):
        state = (step[..., None] * decay).exp() * state + value[..., None] * b[:, None]
    return state


@lane_ends.register_fake
def _(state: Tensor, delta: Tensor, driven: Tensor, drive: Tensor, decay: Tensor) -> Tensor:
    del delta, driven, drive, decay
    return torch.empty_like(state)


@torch.library.custom_op(
    "scaleport::lane_outputs",
    mutates_args=(),
    schema="(Tensor state, Tensor delta, Tensor driven, Tensor drive, Tensor read, Tensor decay)"
    " -> Tensor",
)
def lane_outputs(
    state: Tensor, delta: Tensor, driven: Tensor, drive: Tensor, read: Tensor, decay: Tensor
) -> Tensor:
    """Run the same and return ``y = C h`` of every step, float32[T, K, D].

    C is ``read``, float32[T, K, S].
    """
    outputs = []
    for step, value, b, c in zip(delta, driven, drive, read, strict=True):
        state = (step[..., None] * decay).exp() * state + value[..., None] * b[:, None]
        outputs.append((state * c[:, None]).sum(dim=-1))
    return torch.stack(outputs)


@lane_outputs.register_fake
def _(
    state: Tensor, delta: Tensor, driven: Tensor, drive: Tensor, read: Tensor, decay: Tensor
) -> Tensor:
    del state, driven, drive, read, decay
    return torch.empty_like(delta)


@torch.library.custom_op(
    "scaleport::carry", mutates_args=(), schema="(Tensor passed, Tensor made) -> Tensor"
)
def carry(passed: Tensor, made: Tensor) -> Tensor:
    """What enters every lane: ``h = passed h + made`` over the first dimension, from zero.

    Args:
        passed: what is left of a state behind a lane, float32[T, ...].
        made: the state that a lane ends with when it starts from zero, float32[T, ...].

    Returns:
        h before every step, of the same shape.
    """
    state = torch.zeros_like(made[0])
    entering = []
    for left, added in zip(passed, made, strict=True):
        entering.append(state)
        state = left * state + added
    return torch.stack(entering)


@carry.register_fake
def _(passed: Tensor, made: Tensor) -> Tensor:
    del passed
    return torch.empty_like(made)


def scan_in_lanes(
    x: Tensor,
    delta: Tensor,
    decay: Tensor,
    drive: Tensor,
    read: Tensor,
    skip: Tensor,
    lane: int = LANE,
) -> Tensor:
    """The function of :func:`scaleport.models.scan.selective_scan`, by the operators above.

    Args:
        x: float[N, L, D].
        delta: float[N, L, D], positive step widths.
        decay: A, float[D, S], negative.
        drive: B, float[N, L, S].
        read: C, float[N, L, S].
        skip: D, float[D].
        lane: tokens of a lane.

    Returns:
        float[N, L, D] in the type of ``x``.
    """
    kept = x.dtype
    x, delta, decay, drive, read, skip = (
        widened(value) for value in (x, delta, decay, drive, read, skip)
    )
    n, length, channels = x.shape
    count = count_windows(length, lane)
    states = decay.shape[1]

    def lanes(value: Tensor) -> Tensor:
        # Steps of no width at the end: they neither decay nor drive.
        width = value.shape[2]
        end = value.new_zeros(n, count * lane - length, width)
        return torch.cat([value, end], dim=1).reshape(n * count, lane, width).transpose(0, 1)

    steps = lanes(delta)
    driven, drives = lanes(delta * x), lanes(drive)
    zero = x.new_zeros(n * count, channels, states)
    made = lane_ends(zero, steps, driven, drives, decay)
    passed = (steps.sum(dim=0)[..., None] * decay).exp()
    # Rank 3, lanes first: states of all channels of all images are carried alike.
    before = [
        value.reshape(n, count, channels * states).transpose(0, 1) for value in (passed, made)
    ]
    entering = carry(*before).transpose(0, 1).reshape(n * count, channels, states)
    y = lane_outputs(entering, steps, driven, drives, lanes(read), decay)
    y = y.transpose(0, 1).reshape(n, count * lane, channels)[:, :length]
    out: Tensor = (y + x * skip).to(kept)
    return out


@cache
def translations() -> dict[Any, Callable[..., Any]]:
    """How ``torch.onnx.export`` writes the operators above, by operator."""
    from scaleport.models.scan_onnx import carry_onnx, lane_ends_onnx, lane_outputs_onnx

    return {
        torch.ops.scaleport.lane_ends.default: lane_ends_onnx,
        torch.ops.scaleport.lane_outputs.default: lane_outputs_onnx,
        torch.ops.scaleport.carry.default: carry_onnx,
    }
