"""``scaleport serve``: a model server on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.cli.served import ServedBundle, ServedPrecision
from scaleport.errors import BackendError, UsageError
from scaleport.runtimes.registry import require
from scaleport.serving.repository import ServeOptions, write_repository

EXAMPLES = """\b
Examples:
  scaleport serve scaleport-any.bundle
  scaleport serve scaleport-any.bundle --port 9000 --workers 4 --backend openvino
"""

_START = "from mlserver.cli import main; main()"


def serve(
    bundle: ServedBundle,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is every one.")
    ] = ServeOptions.host,
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=65533, help="HTTP port; gRPC and metrics take the next two."
        ),
    ] = ServeOptions.port,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that run the model.")
    ] = ServeOptions.workers,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Backend that runs the graphs.")
    ] = ServeOptions.backend,
    precision: ServedPrecision = ServeOptions.precision,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """Serve a bundle over the KServe v2 protocol, until Ctrl+C. Needs MLServer.

    Requests carry an image and a scale or a size; scaleport.serving.client is a client in Python.
    """
    out = Output(as_json, quiet, verbose)
    if find_spec("mlserver") is None:
        raise BackendError("MLServer is not installed: pip install 'scaleport[serve]'")

    require(backend)  # said here in one line, instead of by every worker
    options = ServeOptions(
        backend=backend, precision=precision, workers=workers, host=host, port=port
    )
    with tempfile.TemporaryDirectory(prefix="scaleport-serve-") as folder:
        write_repository(bundle, Path(folder), "kserve", options)
        address = f"http://{host}:{port}"
        out.result({"address": address, "model": options.name, "metrics": _metrics(options)})
        out.say(f"serving {bundle} at {address}/v2/models/{options.name}  (Ctrl+C stops)")
        out.say(f"metrics: {_metrics(options)}")
        command = [sys.executable, "-c", _START, "start", folder]
        quietly = None if verbose else subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quietly)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise UsageError(f"MLServer ended with exit code {code}; add -v to see what it printed")


def _metrics(options: ServeOptions) -> str:
    return f"http://{options.host}:{options.port + 2}/metrics"
