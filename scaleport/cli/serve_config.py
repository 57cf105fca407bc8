"""``scaleport serve-config``: a model repository for a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.cli.served import ServedBundle, ServedPrecision
from scaleport.serving.repository import ServeOptions, write_repository

EXAMPLES = """\b
Examples:
  scaleport serve-config photo.bundle --to kserve -o models
  scaleport serve-config photo.bundle --to triton -o models --name photo
"""

NEXT = {
    "kserve": "mlserver start {target}",
    "triton": "tritonserver --model-repository={path}",
    "ovms": "docker run -v {path}:/models -p 9000:9000 openvino/model_server "
    "--config_path /models/config.json --rest_port 9000",
}


def serve_config(
    bundle: ServedBundle,
    server: Annotated[
        str, typer.Option("--to", metavar="SERVER", help="kserve (MLServer), triton or ovms.")
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder to write; must be new or empty."
        ),
    ] = Path("models"),
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the model in requests.")
    ] = ServeOptions.name,
    precision: ServedPrecision = ServeOptions.precision,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Write a model repository for a server; its requests carry the image and the scale."""
    out = Output(as_json, quiet, verbose)

    options = ServeOptions(name=name, precision=precision)
    files = write_repository(bundle, target, server, options)
    start = NEXT[server].format(target=target, path=target.resolve())
    out.result({"server": server, "folder": target, "files": files, "start": start})
    out.say(f"wrote {target} for {server}: {', '.join(str(path) for path in files)}")
    out.say(f"next: {start}")
