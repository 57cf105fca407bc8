"""``scaleport import``: published PyTorch weights to a checkpoint of our own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.contents import model_text
from scaleport.cli.options import refuse_existing
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.cli.parse import whole_numbers_of
from scaleport.errors import OutputError, UsageError
from scaleport.extras import needs
from scaleport.paths import address_problem, holds, make_folder, remove_empty, similar_name
from scaleport.shipped import CHECKPOINT_SUFFIX

EXAMPLES = """\b
Examples:
  scaleport import edsr-baseline-liif.pth
  scaleport export edsr-baseline-liif.safetensors
  scaleport import rcan_igconv_plus.pth -o rcan.safetensors --scales 2,3,4,8
  scaleport import edsr.pth -o edsr.safetensors --set encoder.residual_scale=0.1
  scaleport import thera-rdn-pro.pkl
  scaleport import realesr-general-x4v3.pth -o general.safetensors --spandrel
"""


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FILE.pth", help="Weights as their authors published them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NAME.safetensors",
            help="The checkpoint to write. [default: the file's name here]",
        ),
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option(
            "--scales",
            metavar="LIST",
            help="Integer scales that an IGConv was trained on. [default: as published]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PART.OPTION=VALUE",
            help="Set what the file does not say: an option of encoder, upsampler, normalisation "
            "or scale, e.g. encoder.residual_scale=0.1. Repeat it for more.",
        ),
    ] = None,
    spandrel: Annotated[
        bool,
        typer.Option("--spandrel", help="Take any network of one scale that spandrel knows."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Convert published weights to a checkpoint that carries its own configuration.

    The network is recognised by the names and shapes of its weights. Settings that these do not
    show are assumed as published and printed; --set overrides them.
    """
    out = Output(as_json, quiet, verbose)
    if not holds(source.is_file):
        problem = address_problem(source)
        raise UsageError(problem or f"there is no file {source}{similar_name(source)}")
    output = output or Path(f"{source.stem}{CHECKPOINT_SUFFIX}")
    if output.suffix != CHECKPOINT_SUFFIX:
        raise OutputError(f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}; got {output}")
    refuse_existing(output, overwrite)
    made = make_folder(output.parent)
    try:
        _import(out, source, output, scales, spandrel, settings or ())
    finally:
        remove_empty(made)


def _import(
    out: Output,
    source: Path,
    output: Path,
    scales: list[str] | None,
    spandrel: bool,
    settings: Sequence[str],
) -> None:
    with needs("torch", "import"):
        from scaleport.models.checkpoint import save_checkpoint
        from scaleport.models.importers import import_file
        from scaleport.models.importers.settings import settings_of
    if spandrel:
        with needs("spandrel", "import --spandrel"):
            if find_spec("spandrel") is None:
                raise ModuleNotFoundError("No module named 'spandrel'", name="spandrel")
    given = None if scales is None else whole_numbers_of("--scales", scales)
    with out.libraries():
        found = import_file(source, given, spandrel, settings_of(settings))
        network, info = found.network, found.info()
        save_checkpoint(network, output, {"imported_from": source.name, **info})
    count = network.parameter_count()
    result = {"source": source, "checkpoint": output, "model": network.config, "parameters": count}
    out.result({**result, **info})
    out.say(f"recognised: {found.title}, {found.project}")
    limits = network.limits
    native = ", ".join(f"x{scale}" for scale in network.upsampler.native_scales)
    out.say(f"scales: {native or f'any from {limits.min:g} to {limits.max:g}'}")
    for line in found.assumed:
        out.say(f"assumed: {line}")
    for name, value in found.given.items():
        out.say(f"set: {name} = {json.dumps(value)}")
    for why, keys in found.unused.items():
        out.say(f"not needed: {keys} {'key' if keys == 1 else 'keys'}, {why}")
    out.say(f"wrote {output}: {model_text(network.config)}, {count:,} parameters")
    out.say(f"next: scaleport export {output}")
