"""Make every hostile file and hand it to the command line, in one process of bounded memory.

Usage: ``python attacks/run.py GOOD.bundle FOLDER [NAME ...]``. One line of JSON per attack: what it
was refused with and how long that took, and last the most memory the process had.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checkpoints  # noqa: F401 - the modules register their makers
import graphs  # noqa: F401
import manifests  # noqa: F401
import pictures  # noqa: F401
from makers import MAKERS

from scaleport.cli.main import main

TABLE = Path(__file__).with_name("expected.json")
MOST_MEMORY = 12 << 30
"""Of address space; torch, OpenVINO and ONNX Runtime alone reserve several GiB of it."""
MOST_SECONDS = 60


def run(name: str, command: str, good: Path, folder: Path) -> dict[str, Any]:
    """One attack through the command line."""
    home = folder / name
    home.mkdir()
    MAKERS[name](home, good)
    os.chdir(home)
    before = {path for path in home.rglob("*") if not path.is_symlink()}
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    signal.alarm(MOST_SECONDS)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(shlex.split(command))
    signal.alarm(0)
    made = {path for path in home.rglob("*") if not path.is_symlink()} - before
    return {
        "name": name,
        "exit": code,
        "err": err.getvalue(),
        "out": out.getvalue(),
        "seconds": round(time.monotonic() - start, 3),
        "made": sorted(map(str, made)),
    }


def main_() -> None:
    """Run what the arguments name, or all."""
    good, folder, wanted = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for row in json.loads(TABLE.read_text()):
        if not wanted or row["name"] in wanted:
            print(json.dumps(run(row["name"], row["command"], good, folder)), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_mib": peak >> 10, "attacks": len(MAKERS)}))


if __name__ == "__main__":
    main_()
