"""``scaleport import``: published PyTorch weights to a checkpoint of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.contents import model_text
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag, needs
from scaleport.cli.paths import holds
from scaleport.errors import OutputError, UsageError
from scaleport.shipped import CHECKPOINT_SUFFIX

EXAMPLES = """\b
Example:
  scaleport import edsr-baseline-liif.pth -o liif.safetensors
  scaleport export liif.safetensors
"""


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="FILE.pth", help="Weights as their authors published them.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="NAME.safetensors", help="The checkpoint to write."),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Convert published weights to a checkpoint that carries its own configuration.

    The network is recognised by the names and shapes of its weights.
    """
    out = Output(as_json, quiet, verbose)
    if not holds(source.is_file):
        raise UsageError(f"there is no file {source}")
    if output.suffix != CHECKPOINT_SUFFIX:
        raise OutputError(f"a checkpoint's name ends in {CHECKPOINT_SUFFIX}; got {output}")
    if holds(output.exists) and not overwrite:
        raise OutputError(f"{output} exists; choose another name or add --overwrite")
    if not holds(output.parent.is_dir):
        raise OutputError(f"cannot write {output}: there is no directory {output.parent}")
    with needs("torch", "import"):
        from scaleport.models.checkpoint import save_checkpoint
        from scaleport.models.importers import import_pth
    with out.libraries():
        network = import_pth(source)
        save_checkpoint(network, output, {"imported_from": source.name})
    count = network.parameter_count()
    out.result(
        {"source": source, "checkpoint": output, "model": network.config, "parameters": count}
    )
    out.say(f"wrote {output}: {model_text(network.config)}, {count:,} parameters")
    out.say(f"next: scaleport export {output}")
