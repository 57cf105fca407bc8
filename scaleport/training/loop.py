"""The training loop: plain, and bit-exact when it is stopped and resumed on the same machine."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scaleport.errors import ArtifactError, OutputError, UsageError
from scaleport.grid import Axis, Grid
from scaleport.models import Network, build_network, save_checkpoint
from scaleport.training.data import Batch, ImageCache, Sampler, degrade, split_holdout
from scaleport.training.recipe import Optimiser, Recipe
from scaleport.validation.metrics import psnr_y

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.csv"
_COLUMNS = ("step", "lr", "loss", "seconds", "val_psnr_y")
_LOG_EVERY = 100


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    step: int
    finished: bool
    """False when a signal stopped it before the last step."""
    model: Path | None
    """The weights of a finished run (averaged ones if the recipe asks for an average)."""


def learning_rate(step: int, steps: int, options: Optimiser) -> float:
    """Rate of a step, counted from 0."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    if options.schedule == "step":
        return options.lr * options.gamma ** sum(step >= m for m in options.milestones)
    share = (step - options.warmup) / max(1, steps - options.warmup)
    low = min(options.final_lr, options.lr)
    return low + 0.5 * (options.lr - low) * (1 + math.cos(math.pi * share))


class Trainer:
    """One run of one recipe.

    Args:
        recipe: what to do.
        cache: the images.
        work: directory of the state, the log and the finished model.

    Raises:
        UsageError: if the model or the split of the images cannot be made as asked.
    """

    def __init__(self, recipe: Recipe, cache: ImageCache, work: Path) -> None:
        self.recipe = recipe
        self.cache = cache
        self.work = work
        train, self.held_out = split_holdout(len(cache), recipe.validation.images)
        self.sampler = Sampler(cache, train, recipe.patch, recipe.batch, recipe.downscale)
        torch.manual_seed(recipe.seed)
        self.network = build_network(recipe.model)
        # channels_last doubles the speed of convolutions in bfloat16. The stubs of torch do not
        # know that Module.to takes it.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        native = self.network.upsampler.native_scales
        if native and not set(recipe.scales.set) <= set(native):
            raise UsageError(f"this network trains at scales.set out of {list(native)}")
        if native and recipe.scales.range is not None:
            raise UsageError(f"this network needs scales.set, out of {list(native)}")
        self.average = copy.deepcopy(self.network).requires_grad_(False) if recipe.ema else None
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=recipe.optimiser.lr, betas=recipe.optimiser.betas
        )
        self.step = 0
        self.history: list[list[int]] = [[0, recipe.steps]]
        """From which step on the schedule was laid out for how many steps."""
        self._stop = False

    @property
    def result_network(self) -> Network:
        """The network to keep: the average where there is one."""
        return self.network if self.average is None else self.average

    def run(
        self,
        until: int | None = None,
        report: Callable[[int, float, float | None], None] | None = None,
    ) -> Result:
        """Train to the last step, to ``until``, or to a SIGINT or SIGTERM; save in any case.

        Args:
            until: stop after this many steps in all, as a signal would.
            report: called after each step with the step, its loss and, where measured, the
                validation PSNR.

        Raises:
            OutputError: if the state or the model cannot be written.
            UsageError: if no image is large enough, or the loss is no longer finite.
        """
        recipe, last = self.recipe, min(self.recipe.steps, until or self.recipe.steps)
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.work}: {error.strerror or error}") from error
        losses: list[float] = []
        start = time.monotonic()
        with self._signals(), _Log(self.work / LOG_FILE, self.step) as log:
            while self.step < last and not self._stop:
                loss = self._train_step()
                if not math.isfinite(loss):
                    raise UsageError(
                        f"the loss is {loss} at step {self.step}: lower optimiser.lr or set "
                        "optimiser.clip_norm, and resume"
                    )
                losses.append(loss)
                self.step += 1
                done = self.step == recipe.steps
                value = None
                if self.held_out and (done or self.step % recipe.validation.every == 0):
                    value = self._validate()
                if value is not None or done or self.step % _LOG_EVERY == 0:
                    log.row(self.step, self._lr(), losses, time.monotonic() - start, value)
                    losses, start = [], time.monotonic()
                if report is not None:
                    report(self.step, loss, value)
                if self.step % recipe.checkpoint_every == 0 and not done:
                    self.save_state()
        self.save_state()
        if self.step < recipe.steps:
            return Result(self.step, False, None)
        path = self.work / MODEL_FILE
        info = {
            "steps": self.step,
            "schedule": self.history,
            "recipe": msgspec.to_builtins(recipe),
        }
        save_checkpoint(self.result_network, path, info)
        return Result(self.step, True, path)

    def save_state(self) -> None:
        """Write everything that a resumed run needs; the old state stays until this is complete."""
        state = {
            "recipe": _identity(self.recipe),
            "images": [entry.name for entry in self.cache.entries],
            "step": self.step,
            "history": self.history,
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        path = self.work / STATE_FILE
        temporary = path.with_name(path.name + ".tmp")
        try:
            torch.save(state, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error}") from error

    def load_state(self) -> None:
        """Continue where :meth:`save_state` left off.

        The number of steps may differ from that of the interrupted run: the learning rate follows
        the new schedule from here on, and ``history`` keeps the change.

        Raises:
            ArtifactError: if the state is damaged.
            UsageError: if there is none, or it belongs to another recipe or other images.
        """
        path = self.work / STATE_FILE
        if not path.is_file():
            raise UsageError(f"nothing to resume: no {path}")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            recipe, images = state["recipe"], state["images"]
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.PickleError) as error:
            raise ArtifactError(f"{path} is damaged; train anew without --resume") from error
        if recipe != _identity(self.recipe):
            raise UsageError(f"{path} belongs to another recipe; use another --work")
        if images != [entry.name for entry in self.cache.entries]:
            raise UsageError(f"{path} was trained on other images; use another --work")
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_rng"])
        self.step = state["step"]
        self.history = state["history"]
        if self.history[-1][1] != self.recipe.steps:
            self.history.append([self.step, self.recipe.steps])

    def _lr(self) -> float:
        return learning_rate(self.step, self.recipe.steps, self.recipe.optimiser)

    def _train_step(self) -> float:
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        scale = self._scale(rng)
        batch = self.sampler.draw(scale, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr()
        self.network.train()
        loss = self._loss(batch, rng)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.optimiser.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.optimiser.clip_norm)
        self.optimiser.step()
        if self.average is not None:
            # The average of few steps must not remember the initial weights.
            decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            with torch.no_grad():
                for kept, new in pairs:
                    kept.lerp_(new, 1 - decay)
        return float(loss.detach())

    def _scale(self, rng: np.random.Generator) -> float:
        scales = self.recipe.scales
        if scales.range is None:
            return float(scales.set[int(rng.integers(len(scales.set)))])
        return float(rng.uniform(*scales.range))

    def _loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """L1 over all pixels, or over random ones of a query network."""
        network, norm = self.network, self.network.normalisation
        image = _nchw(batch.lr).contiguous(memory_format=torch.channels_last)
        lr_side, hr_side = batch.lr.shape[1], batch.hr.shape[1]
        grid = Grid.from_size(lr_side, lr_side, hr_side, hr_side)
        constants = network.prepare(grid)  # hyper-networks stay float32
        points = getattr(network.upsampler, "points_hoisted", None)
        points = points or getattr(network.upsampler, "points", None)
        count = min(self.recipe.queries or hr_side**2, hr_side**2)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            features = network.encode(image, constants)
            if points is None:
                out = network.render(features, grid, constants)
                return functional.l1_loss(out.float(), _nchw(batch.hr))
            chosen = np.stack(
                [rng.choice(hr_side**2, count, replace=False) for _ in range(len(batch.hr))]
            )
            axis = Axis.whole(lr_side, hr_side)
            rows, cols = np.divmod(chosen, hr_side)
            query = (axis.index[rows], axis.offset[rows], axis.index[cols], axis.offset[cols])
            scale = torch.from_numpy(grid.scale)[None].expand(len(batch.hr), -1)
            out = points(features["feature"], *(torch.from_numpy(q) for q in query), scale)
        target = np.take_along_axis(
            batch.hr.reshape(len(batch.hr), -1, 3), chosen[..., None], axis=1
        )
        pixels = out.float() * norm.std + network.mean.reshape(1, 1, 3)
        return functional.l1_loss(pixels, torch.from_numpy(target))

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean luma PSNR in dB of the held-out images, over the integer scales trained on."""
        network = self.result_network.eval()
        low, high = self.recipe.scales.range or (0, 0)
        scales = (
            self.recipe.scales.set or [s for s in (2, 3, 4) if low <= s <= high] or [round(high)]
        )
        values = []
        for index in self.held_out:
            image = self.cache[index]
            for scale in scales:
                side = min(self.recipe.validation.crop, *image.shape[:2]) // scale * scale
                y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
                hr = image[y : y + side, x : x + side]
                lr = degrade(hr, side // scale, side // scale) / 255
                grid = Grid.from_size(lr.shape[0], lr.shape[1], side, side)
                out = network(_nchw(lr[None]), grid)[0].permute(1, 2, 0).numpy()
                values.append(psnr_y(out * 255, hr, scale))
        return float(np.mean(values))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a stop after the current step."""

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stop = True

        self._stop = False
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return
        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Log:
    """CSV of the run; rows of steps that a resumed run repeats are dropped first."""

    def __init__(self, path: Path, step: int) -> None:
        kept: list[list[str]] = []
        if step and path.is_file():
            with path.open(newline="", encoding="utf-8") as old:
                kept = [row for row in csv.reader(old) if row and row[0].isdigit()]
                kept = [row for row in kept if int(row[0]) <= step]
        try:
            self._file = path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._writer = csv.writer(self._file)
        self._writer.writerows([_COLUMNS, *kept])

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def row(
        self, step: int, lr: float, losses: list[float], seconds: float, psnr: float | None
    ) -> None:
        mean = sum(losses) / len(losses)
        cells = [step, f"{lr:.3e}", f"{mean:.6f}", f"{seconds:.1f}"]
        self._writer.writerow([*cells, "" if psnr is None else f"{psnr:.3f}"])
        self._file.flush()


def _identity(recipe: Recipe) -> str:
    """What must not change when a run is resumed: all but the number of steps."""
    return msgspec.json.encode(msgspec.structs.replace(recipe, steps=0)).decode()


def _nchw(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
