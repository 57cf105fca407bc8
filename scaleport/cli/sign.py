"""``scaleport sign``: vouch for a bundle with a key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.errors import UsageError

EXAMPLES = """\b
Examples:
  scaleport sign --new-key photo.key
  scaleport sign scaleport-any.bundle --key photo.key
  scaleport upscale photo.jpg -m scaleport-any.bundle -s 2.7 --verify-key photo.key.pub
"""


def sign(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="The bundle to sign.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Private Ed25519 key, a PEM file without a password."),
    ] = None,
    make: Annotated[
        Path | None,
        typer.Option(
            "--new-key", metavar="KEY", help="Make a key here, and the public one as KEY.pub."
        ),
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Sign a bundle's manifest, after comparing every file with its hash.

    Sign last: storing results in the manifest, as validate does, makes an older signature void.
    """
    out = Output(as_json, quiet, verbose)
    if (make is None) == (bundle is None):
        raise UsageError("give a bundle to sign and its --key, or --new-key to make a key")
    from scaleport.bundle.signing import new_key, sign_bundle

    if make is not None:
        if key is not None:
            raise UsageError("--new-key makes a key and needs no --key")
        public = new_key(make)
        out.result({"private_key": make, "public_key": public})
        out.say(f"{make}: keep it secret; {public}: give it to whoever checks your bundles")
        return
    if bundle is None or key is None:
        raise UsageError("signing needs --key; make one with scaleport sign --new-key KEY")
    signature = sign_bundle(bundle, key)
    out.result({"bundle": bundle, "signature": signature})
    out.say(f"signed {bundle}: {signature}")
