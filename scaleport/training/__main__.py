"""``python -m scaleport.training RECIPE.yaml --data DIR --work DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scaleport.errors import ScaleportError, UsageError
from scaleport.training.data import build_cache
from scaleport.training.loop import STATE_FILE, Result, Trainer
from scaleport.training.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parent / "recipes"
INTERRUPTED = 130


def find_recipe(name: str) -> Path:
    """A recipe's path: a file, or the name of one that comes with the package.

    Raises:
        UsageError: if there is neither.
    """
    path, shipped = Path(name), RECIPES / f"{name}.yaml"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise UsageError(f"no recipe {name}: give a YAML file or one of {names}")


def train(
    recipe: Recipe, data: Path, work: Path, resume: bool, until: int | None, console: Console
) -> Result:
    """Train one recipe with a progress bar."""
    if not resume and (work / STATE_FILE).exists():
        raise UsageError(f"{work} holds a run already: add --resume, or use another --work")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        reading = progress.add_task("images", total=None, note="")
        cache = build_cache(
            data, work, lambda done, count: progress.update(reading, completed=done, total=count)
        )
        progress.update(reading, completed=len(cache), total=len(cache))
        trainer = Trainer(recipe, cache, work)
        if resume:
            trainer.load_state()
        training = progress.add_task("steps", total=recipe.steps, completed=trainer.step, note="")

        def report(step: int, loss: float, psnr: float | None) -> None:
            progress.update(training, completed=step)
            if psnr is not None:
                note = f"step {step}: loss {loss:.5f}, validation {psnr:.2f} dB"
                progress.update(training, note=note)
                if not console.is_terminal:
                    console.print(note)

        return trainer.run(until=until, report=report)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scaleport.training", description="Train a network from a folder of images."
    )
    parser.add_argument("recipe", help="YAML file, or the name of a shipped recipe: igconv-small")
    parser.add_argument("--data", type=Path, required=True, help="folder tree of training images")
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for the decoded images, state, log and model",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --work")
    parser.add_argument(
        "--steps", type=int, help="instead of the recipe's; may change when resuming"
    )
    parser.add_argument(
        "--until", type=int, help="stop after this many steps, as if interrupted there"
    )
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        recipe = load_recipe(find_recipe(options.recipe))
        if options.steps is not None:
            recipe = msgspec.structs.replace(recipe, steps=options.steps)
            recipe.check()
        result = train(recipe, options.data, options.work, options.resume, options.until, console)
    except ScaleportError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    if not result.finished:
        console.print(f"stopped at step {result.step}; continue with --resume", soft_wrap=True)
        return INTERRUPTED
    console.print(f"finished: {result.model}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # vanishing gradients must not slow the processor down
    sys.exit(main())
