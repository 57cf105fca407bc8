"""``scaleport train``: a recipe and a folder of images in, a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, put
from scaleport.cli.stopping import EXIT_INTERRUPTED
from scaleport.extras import needs
from scaleport.training.shipped import RECIPES, shipped_recipes

NAMES = ", ".join(path.stem for path in shipped_recipes() if path.parent == RECIPES)

EXAMPLES = f"""Recipes: {NAMES}; of a minute or two, for trying: smoke/liif and others; of
the papers: paper/igconv-plus-rdn and others. An unknown name lists them all.

\b
Examples:
  scaleport train scaleport-s --data IMAGES --work runs/s
  scaleport train scaleport-s --data IMAGES --work runs/s --resume --steps 60000 --lr 5e-4
  scaleport train scaleport-photo --data IMAGES --work runs/photo --show 32
  scaleport train own.yaml --data IMAGES --work runs/own --init runs/s/model.safetensors
  scaleport train scaleport-m --data IMAGES --work runs/m --accelerator cuda --devices 4
  scaleport train scaleport-m --data IMAGES --work runs/m --accelerator cuda --minutes 60
"""


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="YAML file, or the name of a shipped recipe."),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder tree of training images.")],
    work: Annotated[Path, typer.Option(metavar="DIR", help="Folder of state, log and model.")],
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of decoded images, shared by runs. [default: --work]"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --work.")] = False,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Checkpoint to begin with.")
    ] = None,
    grow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Checkpoint of a smaller network, which is enlarged to begin with."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of steps, instead of the recipe's; may change when resuming."
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            help="Fit the recipe's schedule into this time, instead of its steps.",
        ),
    ] = 0.0,
    resident: Annotated[
        bool | None,
        typer.Option(
            "--resident/--stream",
            help="Keep all images on the device and make batches there, or stream batches to it. "
            "[default: on a GPU where they fit]",
        ),
    ] = None,
    until: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after this many steps in all.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Highest learning rate of the steps that --resume --steps adds."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Processes that prepare batches.")
    ] = 0,
    accelerator: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda.")] = "auto",
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes per node, one device each.")
    ] = 1,
    nodes: Annotated[int, typer.Option(metavar="N", min=1, help="Number of nodes.")] = 1,
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="auto, ddp, or another of Lightning Fabric.")
    ] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log there too, below --work.")
    ] = False,
    show: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Draw the first N samples into --work and train nothing."
        ),
    ] = 0,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Train a network. It can be stopped at any time and continued with --resume.

    Writes model.safetensors, and on the way latest.safetensors, log.csv and a plot of it.
    """
    out = Output(as_json, quiet, verbose)
    with needs("train", "training"):
        from scaleport.training import command

    if show:
        sheet = command.show(recipe, data, work, cache, show)
        out.result({"sheet": sheet})
        out.say(str(sheet))
        return
    options = command.TrainingOptions(
        data,
        work,
        cache=cache,
        resume=resume,
        init=init,
        grow=grow,
        steps=steps,
        minutes=minutes,
        resident=resident,
        until=until,
        lr=lr,
        workers=workers,
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        strategy=strategy,
        tensorboard=tensorboard,
    )
    with out.progress(log=True) as progress:
        result = command.train(recipe, options, progress, out.remark)
    out.result({"step": result.step, "finished": result.finished, "model": result.model})
    if not result.finished:
        if not quiet:
            put(f"stopped at step {result.step}; continue with --resume", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    out.say(str(result.model))
    out.say(f"next: scaleport export {result.model}")
