"""Training steps as CUDA graphs: recorded once per shape of a batch, then replayed.

A step of a small network is some hundred kernels, which a GPU computes faster than Python can
start them. A replay starts all of them at once. Source of the method: "Accelerating PyTorch with
CUDA graphs", PyTorch's notes on CUDA semantics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from scaleport.errors import one_line
from scaleport.models.positions import GridTensors
from scaleport.training.data import LocatedGroup, tensors_of

Work = Callable[[list[LocatedGroup]], Tensor]
"""Forward, backward and update on a batch; returns the loss, a scalar."""

WARM_UP = 3
"""Steps of a shape that are computed plainly before it is recorded: libraries choose their
kernels, and the optimiser makes its state, in those."""

MOST_GRAPHS = 12
"""Every graph keeps the memory of its activations."""


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    groups: list[LocatedGroup]
    """Tensors that the graph reads."""
    loss: Tensor
    """The tensor that it writes."""


class CapturedSteps:
    """Does the work of steps; replays it where the device and the network allow that.

    Whatever the work reads besides its batch must stay where it is (weights, a learning rate that
    is a tensor), or be named by ``variant``.

    Args:
        work: what to do with a batch.
        device: where its tensors lie. Without CUDA every step is computed plainly.
        fresh: called before a step is recorded; drops gradients, so that the graph owns its own.
        refusal: why no step may be recorded.
    """

    def __init__(
        self, work: Work, device: torch.device, fresh: Callable[[], None], refusal: str = ""
    ) -> None:
        self.work = work
        self.fresh = fresh
        self.refusal = refusal if device.type == "cuda" else f"{device.type} has no CUDA graphs"
        """Why steps are computed plainly; empty where they may be recorded."""
        self._device = device
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, _Recorded] = {}

    @property
    def count(self) -> int:
        """Number of graphs."""
        return len(self._recorded)

    def __call__(self, groups: list[LocatedGroup], variant: Hashable = None) -> Tensor:
        """The loss of one step, after its update.

        Args:
            groups: the batch.
            variant: what the work does differently without a change of shape.
        """
        if self.refusal:
            return self.work(groups)
        key = (variant, *(_shape(group) for group in groups))
        if key not in self._recorded:
            self._seen[key] += 1
            if self._seen[key] <= WARM_UP or self.count >= MOST_GRAPHS:
                return self._beside(groups)
            try:
                self._recorded[key] = self._record(groups)
            except RuntimeError as error:  # torch raises this and its children alone
                self.refusal = one_line(error)
                torch.cuda.synchronize(self._device)
                self.fresh()
                return self.work(groups)
        made = self._recorded[key]
        for kept, group in zip(made.groups, groups, strict=True):
            for mine, other in zip(tensors_of(kept), tensors_of(group), strict=True):
                mine.copy_(other, non_blocking=True)
        made.graph.replay()
        return made.loss.clone()

    def _beside(self, groups: list[LocatedGroup]) -> Tensor:
        """A plain step on another stream, as a recording needs it to have been."""
        main = torch.cuda.current_stream(self._device)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            loss = self.work(groups)
        main.wait_stream(side)
        loss.record_stream(main)
        return loss

    def _record(self, groups: list[LocatedGroup]) -> _Recorded:
        kept = [_copy(group) for group in groups]
        self.fresh()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss = self.work(kept)
        return _Recorded(graph, kept, loss)


def _shape(group: LocatedGroup) -> Hashable:
    """What of a group is written into a graph.

    Points bring their scales as numbers on the device; a window belongs to one side.
    """
    shapes = tuple(tuple(tensor.shape) for tensor in tensors_of(group))
    return shapes, tuple(group["window"]), group["sides"][0] if group["window"] else len(shapes)


def _copy(group: LocatedGroup) -> LocatedGroup:
    made = group.copy()
    made["lr"], made["target"] = group["lr"].clone(), group["target"].clone()
    if not group["window"]:
        made["at"] = GridTensors(*(part.clone() for part in group["at"]))
    return made
