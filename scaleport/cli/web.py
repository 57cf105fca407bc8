"""``scaleport web``: the demo page on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag

EXAMPLES = """\b
Examples:
  make web && scaleport web
  scaleport web build/site --port 9000 --open
"""


def web(
    site: Annotated[
        Path | None,
        typer.Argument(
            metavar="SITE", help="Folder of the site. [default: what make web built here]"
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="TCP port; 0 takes a free one.")
    ] = 8087,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Serve the demo page to browsers on this machine, until Ctrl+C.

    The page zooms into photographs with the shipped models. The networks run in the browser;
    photographs stay there.
    """
    out = Output(as_json, quiet, verbose)
    from scaleport.serving.site import SiteServer, default_site

    with SiteServer(site or default_site(), port) as server:
        out.result({"address": server.address, "site": site or default_site()})
        out.say(f"open {server.address}  (Ctrl+C stops)")
        if show:
            import webbrowser

            webbrowser.open(server.address)
        server.serve_forever()
