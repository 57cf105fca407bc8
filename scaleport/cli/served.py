"""What ``serve`` and ``serve-config`` ask for alike. Defaults are those of ``ServeOptions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.completing import complete_model

ServedBundle = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE|NAME",
        autocompletion=complete_model,
        help="The bundle to serve, or a model by name.",
    ),
]
ServedPrecision = Annotated[
    str, typer.Option(metavar="NAME", help="fp32, fp16 or int8. [default: the first there is]")
]
