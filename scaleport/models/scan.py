"""Selective scan: a linear recurrence whose decay and drive depend on the token.

Source: Mamba (Gu and Dao 2023, arXiv 2312.00752, section 3.2 and algorithm 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from scaleport.models.layers import widened

_TOKENS_PER_PIECE = 16384
"""Bounds the memory of the states of one piece: tokens x channels x states."""


def selective_scan(
    x: Tensor, delta: Tensor, decay: Tensor, drive: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    """Run ``h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t``, ``y_t = C_t h_t + D x_t`` over L.

    Computed in float32 at least, in pieces of chunks: the tokens of all chunks advance side by
    side from zero states, then the state that enters each chunk is carried through it, decayed by
    the sum of the exponents so far. No exponent is positive, so nothing overflows.

    Args:
        x: float[N, L, D].
        delta: float[N, L, D], positive step widths.
        decay: A, float[D, S], negative.
        drive: B, float[N, L, S].
        read: C, float[N, L, S].
        skip: D, float[D].

    Returns:
        float[N, L, D] in the type of ``x``.
    """
    kept = x.dtype
    x, delta, decay, drive, read, skip = (
        widened(value) for value in (x, delta, decay, drive, read, skip)
    )
    state = x.new_zeros(x.shape[0], x.shape[2], decay.shape[1])
    pieces = []
    for start in range(0, x.shape[1], _TOKENS_PER_PIECE):
        part = slice(start, start + _TOKENS_PER_PIECE)
        y, state = _piece(x[:, part], delta[:, part], decay, drive[:, part], read[:, part], state)
        pieces.append(y)
    return (torch.cat(pieces, dim=1) + x * skip).to(kept)


def _piece(
    x: Tensor, delta: Tensor, decay: Tensor, drive: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One piece of tokens from a state; gives the outputs without skip, and the last state."""
    n, length, channels = x.shape
    states = decay.shape[1]
    chunk = math.ceil(math.sqrt(length))
    count = -(-length // chunk)
    missing = chunk * count - length

    def chunks(value: Tensor) -> Tensor:
        # Steps of no width at the end: they neither decay nor drive.
        value = functional.pad(value, (0, 0, 0, missing))
        return value.reshape(n, count, chunk, value.shape[2])

    x, delta, drive, read = chunks(x), chunks(delta), chunks(drive), chunks(read)
    exponent = delta[..., None] * decay  # [N, count, chunk, D, S]
    driven = (delta * x)[..., None] * drive[..., None, :]
    local = x.new_zeros(n, count, channels, states)
    reached = []
    for step in range(chunk):
        local = exponent[:, :, step].exp() * local + driven[:, :, step]
        reached.append(local)
    passed = exponent.cumsum(dim=2).exp()
    entering = []
    for index in range(count):
        entering.append(state)
        state = passed[:, index, -1] * state + local[:, index]
    all_states = torch.stack(reached, dim=2) + passed * torch.stack(entering, dim=1)[:, :, None]
    y = (all_states * read[..., None, :]).sum(dim=-1)
    return y.reshape(n, count * chunk, channels)[:, :length], state
