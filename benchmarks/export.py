"""How long an export takes, as whole processes, beside one plain call of PyTorch's ONNX exporter.

The plain script loads the same checkpoint and exports its encoder alone, with dynamic height and
width. Each round runs every command once, in turn; ratios are taken within rounds::

    python benchmarks/export.py scaleport-s --rounds 3
    python benchmarks/export.py scaleport-s scaleport-any --rounds 3 --all
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from scaleport.benchmark.timing import surroundings
from scaleport.shipped import find_checkpoint

PLAIN = """
import sys
from pathlib import Path
import torch
from scaleport.models.checkpoint import load_checkpoint
encoder = load_checkpoint(Path(sys.argv[1])).encoder.eval()
sizes = {2: torch.export.Dim("H"), 3: torch.export.Dim("W")}
image = torch.rand(1, 3, 64, 80)
torch.onnx.export(encoder, (image,), sys.argv[2], dynamo=True, dynamic_shapes=(sizes,))
"""


def commands(name: str, folder: Path, everything: bool) -> dict[str, list[str]]:
    """What is run, by name: the plain script first."""
    export = [sys.executable, "-m", "scaleport.cli.main", "export", name]
    export += ["--overwrite", "--no-cache"]
    checkpoint = str(find_checkpoint(name))
    found = {
        "plain": [sys.executable, "-c", PLAIN, checkpoint, str(folder / "plain.onnx")],
        "onnx fp32": [
            *(*export, "-o", str(folder / "one.bundle")),
            *("--format", "onnx", "--precision", "fp32"),
        ],
    }
    if everything:
        found["all"] = [*export, "-o", str(folder / "all.bundle")]
    return found


def seconds(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of processors, that a command takes from start to end."""
    before = os.times()
    start = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    passed, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return passed, used - before.children_user - before.children_system


def main() -> None:
    """Measure and print, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="shipped checkpoints, or files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="also all formats and precisions")
    arguments = parser.parse_args()
    print(json.dumps(surroundings(0)))
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            wanted = commands(name, Path(folder), arguments.all)
            rounds = [
                {what: seconds(command) for what, command in wanted.items()}
                for _ in range(arguments.rounds)
            ]
        for what in wanted:
            row = {
                "checkpoint": name,
                "export": what,
                "seconds": round(median(one[what][0] for one in rounds), 2),
                "processor_seconds": round(median(one[what][1] for one in rounds), 2),
                "times_plain": round(median(one[what][0] / one["plain"][0] for one in rounds), 2),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
