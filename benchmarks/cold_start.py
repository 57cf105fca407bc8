"""From nothing to the first pixels: import, load, and a 64x64 upscale, each in a fresh process.

Torch is not imported, which the script checks. The package imports what it needs when it needs it,
so most importing falls to "load". The first process of a backend is left out: it may read the
library from disk. Seconds are medians::

    python benchmarks/cold_start.py MODEL.bundle --rounds 9
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scaleport.benchmark.timing import Spread, surroundings

CHILD = """
import time
start = time.perf_counter()
import sys, json
import scaleport
imported = time.perf_counter()
upscaler = scaleport.load(sys.argv[1], backend=sys.argv[2])
loaded = time.perf_counter()
import numpy as np
out = upscaler(np.zeros((64, 64, 3), np.uint8), scale=float(sys.argv[3]))
end = time.perf_counter()
assert "torch" not in sys.modules
print(json.dumps({"import": imported - start, "load": loaded - imported,
                  "first": end - loaded, "total": end - start}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(json.dumps(surroundings(0)))
    cases = [(bundle, backend) for bundle in arguments.bundles for backend in arguments.backends]
    taken: dict[tuple[Path, str], list[dict[str, float]]] = {case: [] for case in cases}
    for turn in range(arguments.rounds + 1):
        for bundle, backend in cases:
            command = [sys.executable, "-c", CHILD, str(bundle), backend, str(arguments.scale)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            if turn:
                taken[bundle, backend].append(json.loads(ran.stdout))
    for (bundle, backend), found in taken.items():
        parts = {part: Spread.of([one[part] for one in found]).median for part in found[0]}
        print(json.dumps({"bundle": bundle.name, "backend": backend, **parts}))


if __name__ == "__main__":
    main()
