"""``python -m scaleport.training RECIPE --data DIR --work DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from scaleport.errors import ScaleportError
from scaleport.training.command import Options, finish, train


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scaleport.training", description="Train a network from a folder of images."
    )
    add = parser.add_argument
    add("recipe", help="YAML file, or the name of a shipped recipe, such as scaleport-s")
    add("--data", type=Path, required=True, help="folder tree of training images")
    add("--work", type=Path, required=True, help="folder of the state, the log and the model")
    add("--cache", type=Path, help="folder of the decoded images, shared by runs; --work if absent")
    add("--resume", action="store_true", help="continue the run in --work")
    add("--init", type=Path, help="checkpoint to begin with")
    add("--grow", type=Path, help="smaller EDSR with IGConv to begin with, enlarged")
    add("--steps", type=int, help="instead of the recipe's; may change when resuming")
    add("--until", type=int, help="stop after this many steps, as if interrupted there")
    add("--lr", type=float, help="highest learning rate of the leg that --resume --steps adds")
    add("--workers", type=int, default=0, help="processes that prepare batches")
    add("--accelerator", default="auto", help="auto, cpu, cuda")
    add("--devices", type=int, default=1, help="processes per node")
    add("--nodes", type=int, default=1, help="number of nodes")
    add("--strategy", default="auto", help="auto, ddp, or another that Lightning Fabric knows")
    add("--tensorboard", action="store_true", help="log there too")
    given = vars(parser.parse_args(arguments))
    recipe = given.pop("recipe")
    console = Console(stderr=True)
    try:
        options = Options(**given)
        return finish(train(recipe, options, console), options.work, console)
    except ScaleportError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # vanishing gradients must not slow the processor down
    sys.exit(main())
