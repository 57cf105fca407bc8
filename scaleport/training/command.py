"""Training from the command line: recipes by name, progress, exit codes."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scaleport.errors import OutputError, UsageError
from scaleport.training.cache import ImageCache, build_cache
from scaleport.training.devices import computes_bf16, make_fabric
from scaleport.training.log import LOG_FILE, read_log
from scaleport.training.loop import Result, Trainer
from scaleport.training.objective import recipe_network, supervision_of
from scaleport.training.plot import PLOT_FILE, plot_log
from scaleport.training.recipe import Recipe, load_recipe
from scaleport.training.resident import resident_bytes
from scaleport.training.sheet import SHEET_FILE, draw_sheet
from scaleport.training.shipped import find_recipe
from scaleport.training.state import STATE_FILE


@dataclass(frozen=True)
class Options:
    """What a command line says beside the recipe.

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


def train(name: str, options: Options, console: Console) -> Result:
    """Train one recipe with a progress bar.

    Raises:
        ScaleportError: what is wrong with the recipe, the images or the options.
    """
    recipe = load_recipe(find_recipe(name))
    if options.steps is not None:
        recipe = msgspec.structs.replace(recipe, steps=options.steps)
        recipe.check()
    _check(options)
    # What is wrong with the network is said before the images are decoded, which may take hours.
    supervision_of(recipe_network(recipe), recipe)
    fabric = make_fabric(
        options.accelerator, options.devices, options.nodes, options.strategy, recipe.bf16
    )
    if recipe.bf16 and not computes_bf16(fabric.device) and fabric.is_global_zero:
        console.print(f"this {fabric.device.type} has no bfloat16 arithmetic: training in float32")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    visible = console.is_terminal and fabric.is_global_zero
    with Progress(*columns, console=console, disable=not visible) as progress:
        reading = progress.add_task("images", total=None, note="")
        with fabric.rank_zero_first(local=True):
            cache = build_cache(
                options.data,
                options.cache or options.work,
                lambda done, count: progress.update(reading, completed=done, total=count),
            )
        progress.update(reading, completed=len(cache), total=len(cache))
        begin = options.init or options.grow
        trainer = Trainer(
            recipe,
            cache,
            options.work,
            fabric,
            begin,
            options.workers,
            options.grow is not None,
            _resides(options, recipe, cache, fabric.device),
            options.minutes,
        )
        if options.resume:
            trainer.load_state(options.lr)
        elif trainer.start is not None and trainer.start.fresh and fabric.is_global_zero:
            count = len(trainer.start.fresh)
            console.print(f"{begin}: {count} tensors of this network begin fresh")
        training = progress.add_task("steps", total=recipe.steps, completed=trainer.step, note="")

        def report(step: int, loss: float, psnr: float | None) -> None:
            progress.update(training, completed=step)
            if psnr is not None:
                note = f"step {step}: loss {loss:.5f}, validation {psnr:.2f} dB"
                progress.update(training, note=note)
                if not console.is_terminal:
                    console.print(note)

        if fabric.is_global_zero:
            held = len(trainer.held_out)
            console.print(
                f"{trainer.network.parameter_count():,} parameters on {fabric.device.type}, "
                f"{len(cache) - held} images and {held} for validation, "
                f"from step {trainer.step} {_goal(trainer)}",
                soft_wrap=True,
                highlight=False,
            )
        with _no_denormals():
            result = trainer.run(options.until, report, options.tensorboard)
    if fabric.is_global_zero:
        if fabric.device.type == "cuda":
            console.print(trainer.how_computed, soft_wrap=True, highlight=False)
        _plot(options.work, name)
    return result


def _resides(options: Options, recipe: Recipe, cache: ImageCache, device: torch.device) -> bool:
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
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {work}: {error.strerror or error}") from error
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


def _check(options: Options) -> None:
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
