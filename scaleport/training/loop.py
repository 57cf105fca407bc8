"""The training loop: plain, and bit-exact when it is stopped and resumed on the same machine."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from scaleport.atomic import written
from scaleport.errors import UsageError
from scaleport.models import Network, save_checkpoint
from scaleport.models.layers import convolutions_channels_last
from scaleport.shipped import LATEST_FILE, MODEL_FILE
from scaleport.training.ahead import ahead
from scaleport.training.cache import ImageCache, split_holdout
from scaleport.training.capture import CapturedSteps
from scaleport.training.data import Group, LocatedGroup, Sampler, Share
from scaleport.training.devices import make_fabric
from scaleport.training.grow import grow_from
from scaleport.training.log import Log, Row, Tally
from scaleport.training.objective import Objective, recipe_network, supervision_of
from scaleport.training.optimiser import fit_optimiser, make_optimiser, set_rate
from scaleport.training.recipe import Recipe
from scaleport.training.resident import Plans, Resident
from scaleport.training.result import Report, TrainingResult
from scaleport.training.schedule import (
    Budget,
    Due,
    Leg,
    continued,
    due_after,
    learning_rate,
    legs_to_json,
)
from scaleport.training.state import (
    STATE_FILE,
    Start,
    begin_with,
    read_state,
    same_recipe,
    write_state,
)
from scaleport.training.stopping import on_signals
from scaleport.training.validation import held_out_psnr

_READ_EVERY = 20
"""Steps after which losses are read from a GPU, which else would have to wait for the processor."""


class Trainer:
    """One run of one recipe.

    Args:
        recipe: what to do.
        cache: the images.
        work: directory of the state, the log and the finished model.
        fabric: the processes and devices to train on; one process on the CPU if left out.
        init: a checkpoint to begin with.
        grow: whether that is a smaller network whose function the new one begins at.
        workers: processes that prepare batches; 0 to prepare them in between.
        resident: whether the pictures lie on the device and batches are made there.
        minutes: lay the recipe's schedule over this time instead of its steps; 0 for steps.

    Raises:
        UsageError: if the model or the split of the images cannot be made as asked.
    """

    def __init__(
        self,
        recipe: Recipe,
        cache: ImageCache,
        work: Path,
        fabric: Fabric | None = None,
        init: Path | None = None,
        workers: int = 0,
        grow: bool = False,
        resident: bool = False,
        minutes: float = 0.0,
    ) -> None:
        self.recipe = recipe
        self.cache = cache
        self.work = work
        self.workers = workers
        self.fabric = fabric or make_fabric("cpu", 1, 1, "auto", recipe.bf16)
        train, self.held_out = split_holdout(len(cache), recipe.validation.images)
        torch.manual_seed(recipe.seed)
        self.network = recipe_network(recipe)
        begin = grow_from if grow else begin_with
        self.start: Start | None = begin(self.network, init) if init else None
        convolutions_channels_last(self.network)
        share = Share(self.fabric.global_rank, self.fabric.world_size)
        supervision, together = supervision_of(self.network, recipe)
        self._reads_scale = self.network.encoder.reads_scale
        self.sampler = Sampler(cache, train, recipe, supervision, together, share)
        self.resident: Resident | None = None
        if resident:
            self.resident = Resident(cache, self.sampler, self.fabric.device)
        self.average: Network | None = None
        if recipe.ema:
            self.average = copy.deepcopy(self.network).requires_grad_(False)
            self.average.to(self.fabric.device)
        optimiser = make_optimiser(self.network, recipe.optimiser, self.fabric.device)
        self._measure = Objective(self.network, recipe.loss)
        self.objective, self.optimiser = self.fabric.setup(self._measure, optimiser)
        self.step = 0
        self.budget = Budget(minutes) if minutes else None
        self.legs = [Leg(0, 0, recipe.steps, recipe.optimiser.lr, minutes)]
        self._captured = CapturedSteps(
            self._work,
            self.fabric.device,
            lambda: self.optimiser.zero_grad(set_to_none=True),
            "several processes exchange gradients" if self.fabric.world_size > 1 else "",
        )
        self._read_every = 1 if self.fabric.device.type == "cpu" else _READ_EVERY
        self._stop = False
        self._progress = 0.0

    @property
    def how_computed(self) -> str:
        """Whether steps were recorded and replayed, or why they were not."""
        captured = self._captured
        if captured.refusal:
            return f"steps were started one kernel at a time: {captured.refusal}"
        return f"steps were replayed from {captured.count} CUDA graphs"

    @property
    def result_network(self) -> Network:
        """The network to keep: the average where there is one."""
        return self.network if self.average is None else self.average

    def run(
        self,
        until: int | None = None,
        report: Report | None = None,
        tensorboard: bool = False,
    ) -> TrainingResult:
        """Train to the last step, to ``until``, or to a SIGINT or SIGTERM; save in any case.

        Args:
            until: stop after this many steps in all, as a signal would.
            report: called after each step with the step, its loss and, where measured, the
                validation PSNR; in the first process only.
            tensorboard: whether to log there too.

        Raises:
            OutputError: if the state or the model cannot be written.
            UsageError: if no image is large enough, or the loss is no longer finite.
        """
        with written(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
        self._stop = False
        self._progress = self._share()
        first = self.fabric.is_global_zero
        log = Log(self.work, self.step, tensorboard) if first else nullcontext()
        tally = Tally()
        with on_signals(self.stop), log:
            for groups in ahead(self.batches(self._last(until)), self.fabric.device):
                if self._stopped():
                    break
                tally.unread.append(self._train_step(groups))
                self.step += 1
                self._progress = self._share()
                done = self._progress >= 1
                due = due_after(self.step, done, self.recipe, bool(self.held_out))
                if any(due) or self.step % self._read_every == 0:
                    value = self._after(due, tally, log if isinstance(log, Log) else None)
                    if report is not None and first:
                        report(self.step, tally.latest, value)
                if done:
                    break
        self._read(tally)
        self.save_state()
        if self._progress < 1:
            return TrainingResult(self.step, False, None)
        path = self.work / MODEL_FILE
        self._save_model(path)
        return TrainingResult(self.step, True, path)

    def _last(self, until: int | None) -> int:
        """The step to end at unless the time ends first; begins to count the time."""
        if self.budget is None:
            return min(self.recipe.steps, until or self.recipe.steps)
        self.budget.begin()
        return self.step if self._progress >= 1 else until or sys.maxsize

    def _after(self, due: Due, tally: Tally, log: Log | None) -> float | None:
        """Read, measure, log and save what is due; returns the PSNR where it was measured."""
        self._read(tally)
        value = self._validate() if due.measures else None
        if due.logs:
            if log is not None:
                mean, seconds = tally.mean()
                log.row(Row(self.step, self._lr(), mean, seconds, value))
            tally.begin()
        if due.saves:
            self.save_state()
        return value

    def _share(self) -> float:
        """The part of the run that is done, of its time or its steps; the same in all processes."""
        if self.budget is None:
            return self.step / self.recipe.steps
        share = self.budget.share
        return share if self.fabric.world_size == 1 else float(self.fabric.broadcast(share))

    def _read(self, tally: Tally) -> None:
        """Take the losses of the last steps from the device.

        Raises:
            UsageError: if one of them is not finite.
        """
        values: list[float] = torch.stack(tally.unread).tolist() if tally.unread else []
        tally.take(values)
        for step, loss in enumerate(values, self.step - len(values)):
            if not math.isfinite(loss):
                raise UsageError(
                    f"the loss is {loss} at step {step}: lower optimiser.lr or set "
                    "optimiser.clip_norm, and begin again in another --work, with --init "
                    f"{self.work / LATEST_FILE} if that is good"
                )

    def save_state(self) -> None:
        """Write everything that a resumed run needs; the old state stays until this is complete.

        Raises:
            OutputError: if it cannot be written.
        """
        if self.fabric.is_global_zero:
            state = {
                "recipe": msgspec.json.encode(self.recipe).decode(),
                "images": [entry.name for entry in self.cache.entries],
                "step": self.step,
                "legs": legs_to_json(self.legs),
                "start": None if self.start is None else asdict(self.start),
                "network": self.network.state_dict(),
                "spent": self.budget.spent if self.budget else 0.0,
                "average": None if self.average is None else self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
            write_state(self.work / STATE_FILE, state)
        self.fabric.barrier()

    def load_state(self, lr: float | None = None) -> None:
        """Continue where :meth:`save_state` left off.

        The number of steps may differ from that of the state. A run that had finished begins a new
        leg, with a schedule of its own; an interrupted one follows its schedule laid out for the
        new number. The checkpoint's history keeps the change.

        Args:
            lr: highest rate of a new leg, instead of the recipe's.

        Raises:
            ArtifactError: if the state is damaged.
            UsageError: if there is none, or it belongs to another recipe or other images.
        """
        path = self.work / STATE_FILE
        state = read_state(path)
        if not same_recipe(state.get("recipe"), self.recipe):
            raise UsageError(f"{path} belongs to another recipe; use another --work")
        if state.get("images") != [entry.name for entry in self.cache.entries]:
            raise UsageError(f"{path} was trained on other images; use another --work")
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        fit_optimiser(self.optimiser, self.fabric.device)
        self.step = state["step"]
        self.start = None if state["start"] is None else Start(**state["start"])
        legs = msgspec.convert(state["legs"], list[Leg])
        highest = lr or self.recipe.optimiser.lr
        minutes = self.budget.minutes if self.budget else legs[-1].minutes
        if not minutes:
            self.legs = continued(legs, self.step, self.recipe.steps, highest)
            return
        self.budget = Budget(minutes, state.get("spent", 0.0))
        self.legs = legs
        if minutes != legs[-1].minutes:
            self.legs = [*legs, Leg(self.step, 0, self.recipe.steps, highest, minutes)]

    def _position(self) -> float:
        """Where the schedule stands, in steps of the recipe."""
        return self._progress * self.recipe.steps if self.budget else self.step

    def batches(self, last: int) -> Iterator[list[Group]]:
        """This process's share of the batches up to a step, on its device."""
        settings: dict[str, Any] = {
            "batch_size": None,
            "sampler": range(self.step, last),
            "num_workers": self.workers,
        }
        if self.resident is not None:
            plans = DataLoader(Plans(self.sampler), **settings)
            return self.resident.batches(plans, self.step)
        pin = self.fabric.device.type == "cuda"
        loader: DataLoader[list[Group]] = DataLoader(self.sampler, pin_memory=pin, **settings)
        batches: Any = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        return iter(batches)

    def _lr(self) -> float:
        return learning_rate(self._position(), self.legs[-1], self.recipe.optimiser)

    def _train_step(self, groups: list[LocatedGroup]) -> Tensor:
        recipe = self.recipe
        # Whatever a network draws (drop path) depends on the step alone, so that nothing has to
        # be restored on resuming.
        key = np.random.SeedSequence([recipe.seed, self.step, self.fabric.global_rank])
        torch.manual_seed(int(key.generate_state(1, np.uint32)[0]))
        position, leg = self._position(), self.legs[-1]
        set_rate(self.optimiser, learning_rate(position, leg, recipe.optimiser))
        left = (leg.end - position) / max(1, leg.end - leg.start)
        self._measure.squared = left <= recipe.loss.last_mse and recipe.loss.last_mse > 0
        self.network.train()
        scales = [group["sides"][0] for group in groups] if self._reads_scale else []
        loss = self._captured(groups, (self._measure.squared, *scales))
        self._update_average()
        if self.fabric.world_size > 1:
            reduced = self.fabric.all_reduce(loss, reduce_op="mean")
            assert isinstance(reduced, Tensor)
            return reduced
        return loss

    def _work(self, groups: list[LocatedGroup]) -> Tensor:
        """Loss of a batch, whose gradients have changed the weights."""
        loss = self.objective(groups)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if clip := self.recipe.optimiser.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimiser.step()
        detached: Tensor = loss.detach()
        return detached

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None:
            return
        # The average of few steps must not remember the initial weights.
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(list(self.average.parameters()), list(self.network.parameters()), 0)
        for buffer, value in zip(self.average.buffers(), self.network.buffers(), strict=True):
            buffer.copy_(value)

    def _validate(self) -> float | None:
        """PSNR of the held-out images, which only the first process measures; None in others."""
        value = None
        if self.fabric.is_global_zero:
            value = held_out_psnr(self.result_network, self.cache, self.held_out, self.recipe)
            self._save_model(self.work / LATEST_FILE)
        self.fabric.barrier()
        return value

    def _save_model(self, path: Path) -> None:
        if not self.fabric.is_global_zero:
            return
        info: dict[str, Any] = {
            "steps": self.step,
            "schedule": legs_to_json(self.legs),
            "recipe": msgspec.to_builtins(self.recipe),
        }
        if self.start is not None:
            info["init"] = self.start.sha256
        save_checkpoint(self.result_network, path, info)

    def stop(self) -> None:
        """Have the run end after the step that is at work, saved, as a signal would."""
        self._stop = True

    def _stopped(self) -> bool:
        """Whether any process was told to stop: they must agree, or the others would wait."""
        if self.fabric.world_size == 1:
            return self._stop
        flag = torch.tensor(float(self._stop), device=self.fabric.device)
        stopped: Any = self.fabric.all_reduce(flag, reduce_op="sum")
        return bool(stopped > 0)
