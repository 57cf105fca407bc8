"""Batches of a GPU, made while it computes the step before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from scaleport.training.data import Group, LocatedGroup, tensors_of
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
            for value in tensors_of(group):
                value.record_stream(main)
        yield made
