"""Options of verbs that open bundles from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

VerifyKey = Annotated[
    Path | None,
    typer.Option(
        "--verify-key",
        metavar="KEY.pub",
        help="Refuse a bundle that is not signed with this key (see scaleport sign).",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="NAME",
        help="Allow operations whose code comes from elsewhere: custom-ops. [default: nothing]",
    ),
]
