"""Batches of a GPU, made while it computes the step before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from scaleport.training.data import Group, LocatedGroup
from scaleport.training.objective import located


def ahead(batches: Iterable[list[Group]], device: torch.device) -> Iterator[list[LocatedGroup]]:
    """The same batches with the grid of their points, see :func:`located`.

    On CUDA they are made on a stream of their own. What is made of the next batch then waits for
    that stream alone, while the main one computes.
    """
    if device.type != "cuda":
        for groups in batches:
            yield [located(group) for group in groups]
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    iterator = iter(batches)
    while True:
        # No stream may be current while the caller works: it is left before every yield.
        with torch.cuda.stream(side):
            made = [located(group) for group in next(iterator, [])]
        if not made:
            return
        main = torch.cuda.current_stream(device)
        main.wait_stream(side)
        for group in made:
            for value in _tensors(group):
                value.record_stream(main)
        yield made


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list):
        for part in value:
            yield from _tensors(part)
