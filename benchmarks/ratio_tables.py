"""What benchmarks of ratios share: their options, the bundles that they keep, and their figures."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from scaleport.atomic import write_text
from scaleport.benchmark.timing import machine
from scaleport.export.exporter import tool_versions

BASELINE = {"name": "edsr", "width": 64, "blocks": 16}
"""EDSR-baseline, the encoder of all of them."""


def main(
    about: str,
    export: Callable[[Path], None],
    measure: Callable[[Path, int, int], Mapping[str, object]],
) -> None:
    """Read the options, export, measure, print and write JSON.

    Args:
        about: the module's docstring.
        export: writes the bundles that are not there yet to a folder.
        measure: takes the folder, the number of threads and of rounds; figures by name.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--bundles", type=Path, help="keep the exported bundles here, and reuse")
    parser.add_argument("--export-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.bundles or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        export(folder)
        if arguments.export_only:
            return
        figures = {
            "machine": machine(),
            "threads": arguments.threads,
            "tools": tool_versions(),
            **measure(folder, arguments.threads, arguments.rounds),
        }
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        write_text(arguments.json, text + "\n")
