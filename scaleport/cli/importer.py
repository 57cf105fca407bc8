"""``scaleport import``: published PyTorch weights to a checkpoint of our own."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaleport.cli.contents import model_text
from scaleport.cli.options import refuse_existing, whole_numbers_of
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.extras import needs

if TYPE_CHECKING:
    from scaleport.models.importers.convert import Conversion

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
    with needs("torch", "import"):
        from scaleport.models.importers.convert import ImportOptions, import_weights, place_of
        from scaleport.models.importers.settings import settings_of
    if spandrel:
        with needs("spandrel", "import --spandrel"):
            if find_spec("spandrel") is None:
                raise ModuleNotFoundError("No module named 'spandrel'", name="spandrel")
    refuse_existing(place_of(source, output), overwrite)
    options = ImportOptions(
        scales=None if scales is None else whole_numbers_of("--scales", scales),
        settings=settings_of(settings or ()),
        spandrel=spandrel,
        overwrite=overwrite,
    )
    with out.libraries():
        made = import_weights(source, output, options)
    _report(out, source, made)


def _report(out: Output, source: Path, made: Conversion) -> None:
    found, target = made.found, made.checkpoint
    network = found.network
    count = network.parameter_count()
    result = {"source": source, "checkpoint": target, "model": network.config, "parameters": count}
    out.result({**result, **found.info()})
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
    out.say(f"wrote {target}: {model_text(network.config)}, {count:,} parameters")
    out.say(f"next: scaleport export {target}")
