"""Training as a service: recipes by name, options, progress."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from lightning_fabric import Fabric

from scaleport.atomic import written
from scaleport.errors import Cancelled, UsageError
from scaleport.progress import Progress, silent
from scaleport.training.cache import ImageCache, build_cache
from scaleport.training.devices import computes_bf16, make_fabric
from scaleport.training.log import LOG_FILE, read_log
from scaleport.training.loop import Trainer
from scaleport.training.objective import recipe_network, supervision_of
from scaleport.training.plot import PLOT_FILE, plot_log
from scaleport.training.recipe import Recipe, load_recipe
from scaleport.training.resident import resident_bytes
from scaleport.training.result import Report, TrainingResult
from scaleport.training.sheet import SHEET_FILE, draw_sheet
from scaleport.training.shipped import find_recipe
from scaleport.training.state import STATE_FILE


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained on and where, and what differs from the recipe.

    Attributes:
        data: folder tree of training images.
        work: directory of the run.
        cache: where decoded images are kept; ``work`` if None.
        resume: continue the run in ``work``.
        init: checkpoint to begin with.
        grow: checkpoint of a smaller network to begin with.
        steps: number of steps instead of the recipe's.
        until: stop after this many steps.
        minutes: lay the schedule over this time instead of the recipe's steps; 0 for steps.
        lr: highest learning rate of a new leg.
        resident: whether pictures lie on the device; None where that is a GPU and they fit.
        workers: processes that prepare batches.
        accelerator: ``auto``, ``cpu``, ``cuda`` or another name that Fabric knows.
        devices: processes per node.
        nodes: number of nodes.
        strategy: ``auto``, ``ddp`` or another name that Fabric knows.
        tensorboard: whether to log there too.
    """

    data: Path
    work: Path
    cache: Path | None = None
    resume: bool = False
    init: Path | None = None
    grow: Path | None = None
    steps: int | None = None
    until: int | None = None
    minutes: float = 0.0
    lr: float | None = None
    resident: bool | None = None
    workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    tensorboard: bool = False


def train(
    recipe: Path | str,
    options: TrainingOptions,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Train a network by a recipe.

    Args:
        recipe: YAML file, or the name of a shipped recipe.
        options: images, folder of the run, and what differs from the recipe.
        progress: told of decoded images, then of steps with the latest loss and validation, in the
            first process. Where it raises :class:`scaleport.Cancelled` the run is saved, as after
            a signal, and ends unfinished.
        say: called with lines for people: what is trained on what.

    Raises:
        UsageError: if there is no such recipe or image, or options contradict each other.
        ScaleportError: what else is wrong with the recipe, the images or the options.
    """
    name, told, say = str(recipe), progress or silent, say or _nothing
    plan = load_recipe(find_recipe(name))
    if options.steps is not None:
        plan = msgspec.structs.replace(plan, steps=options.steps)
        plan.check()
    _check(options)
    # What is wrong with the network is said before the images are decoded, which may take hours.
    supervision_of(recipe_network(plan), plan)
    fabric = make_fabric(
        options.accelerator, options.devices, options.nodes, options.strategy, plan.bf16
    )
    first = fabric.is_global_zero
    if not first:
        told, say = silent, _nothing
    if plan.bf16 and not computes_bf16(fabric.device):
        say(f"this {fabric.device.type} has no bfloat16 arithmetic: training in float32")
    with fabric.rank_zero_first(local=True):
        cache = build_cache(options.data, options.cache or options.work, told)
    trainer = _trainer(plan, cache, options, fabric)
    begin = options.init or options.grow
    if options.resume:
        trainer.load_state(options.lr)
    elif trainer.start is not None and trainer.start.fresh:
        say(f"{begin}: {len(trainer.start.fresh)} tensors of this network begin fresh")
    held = len(trainer.held_out)
    say(
        f"{trainer.network.parameter_count():,} parameters on {fabric.device.type}, "
        f"{len(cache) - held} images and {held} for validation, "
        f"from step {trainer.step} {_goal(trainer)}"
    )
    with _no_denormals():
        result = trainer.run(options.until, _reporter(trainer, told), options.tensorboard)
    if fabric.device.type == "cuda":
        say(trainer.how_computed)
    if first:
        _plot(options.work, name)
    return result


def _nothing(line: str) -> None:
    """What is said to those who do not listen."""


def _trainer(
    recipe: Recipe, cache: ImageCache, options: TrainingOptions, fabric: Fabric
) -> Trainer:
    return Trainer(
        recipe,
        cache,
        options.work,
        fabric,
        options.init or options.grow,
        options.workers,
        options.grow is not None,
        _resides(options, recipe, cache, fabric.device),
        options.minutes,
    )


def _reporter(trainer: Trainer, progress: Progress) -> Report:
    """Tells of steps, with the words of the latest validation; stops where it is told to."""
    words = ""

    def report(step: int, loss: float, psnr: float | None) -> None:
        nonlocal words
        if psnr is not None:
            words = f"step {step}: loss {loss:.5f}, validation {psnr:.2f} dB"
        try:
            progress(step, trainer.recipe.steps, words)
        except Cancelled:
            trainer.stop()

    return report


def _resides(
    options: TrainingOptions, recipe: Recipe, cache: ImageCache, device: torch.device
) -> bool:
    """Whether to keep the pictures on the device."""
    if options.resident is not None:
        return options.resident
    if device.type != "cuda" or recipe.degradations.clean != 1:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * resident_bytes(cache) < free


def _goal(trainer: Trainer) -> str:
    if trainer.budget is None:
        return f"to {trainer.recipe.steps}"
    left = trainer.budget.minutes * (1 - trainer.budget.share)
    return f"for {left:.1f} of {trainer.budget.minutes:g} minutes"


def show(name: str, data: Path, work: Path, cache: Path | None, count: int) -> Path:
    """Draw the first samples of a recipe into the run's folder, and train nothing.

    Raises:
        ScaleportError: what is wrong with the recipe or the images.
    """
    recipe = load_recipe(find_recipe(name))
    supervision_of(recipe_network(recipe), recipe)
    path = work / SHEET_FILE
    images = build_cache(data, cache or work)
    with written(work):
        work.mkdir(parents=True, exist_ok=True)
    draw_sheet(recipe, images, count, path)
    return path


@contextlib.contextmanager
def _no_denormals() -> Iterator[None]:
    """Vanishing gradients must not slow the processor down."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _plot(work: Path, name: str) -> None:
    rows = read_log(work / LOG_FILE)
    # The picture is an extra: without matplotlib a run is none the worse.
    if rows and importlib.util.find_spec("matplotlib") is not None:
        plot_log(rows, work / PLOT_FILE, Path(name).stem)


def _check(options: TrainingOptions) -> None:
    if not options.resume and (options.work / STATE_FILE).exists():
        raise UsageError(f"{options.work} holds a run already: add --resume, or use another --work")
    if sum((options.resume, options.init is not None, options.grow is not None)) > 1:
        raise UsageError("--init and --grow begin a run, --resume continues one: give only one")
    if options.minutes and options.steps is not None:
        raise UsageError("--minutes takes the place of --steps: give only one")
    if options.minutes < 0:
        raise UsageError("--minutes is above 0")
    if options.lr is not None and not (options.resume and options.lr > 0):
        raise UsageError("--lr is the highest rate of a new leg: above 0, together with --resume")
    if min(options.devices, options.nodes) < 1 or options.workers < 0:
        raise UsageError("--devices and --nodes are at least 1, --workers at least 0")
