"""Peak memory and time of whole files, by backend, size of image and tile.

Every row is a process of its own that loads the bundle, upscales one PNG to another and says how
much memory it had at most (resident, everything included), how long the upscale took, and how much
processor time::

    python benchmarks/memory.py --bundle igconv-small.bundle --json memory.json
    python benchmarks/memory.py --bundle igconv-small.bundle --tiles 32,128,512 --sides 1024:2

``--linear`` asks whether processor time follows the number of pixels, with one shape of tile
and on one thread, because threads that wait for each other count as busy. Other work on the machine
matters little to it. A quarter of the halos of a small image lies outside of it and costs nothing:
with tiles of 256 pixels, 1024x1024 is about 3 % cheaper by the pixel than 2048x2048.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scaleport.atomic import write_text
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.imaging.files import Image, save_image
from scaleport.shipped import find_checkpoint

CHILD = """
import json, sys, time
from scaleport.benchmark.memory import peak_bytes
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import load
from scaleport.runtimes.view import TilePolicy
bundle, backend, source, target, scale, tile, threads = sys.argv[1:]

up = load(bundle, backend, threads=int(threads), policy=TilePolicy(tile=int(tile)))
up.device
loaded = peak_bytes()
start, busy = time.perf_counter(), time.process_time()
upscale_file(up, source, target, float(scale))
seconds, busy = time.perf_counter() - start, time.process_time() - busy
found = {"loaded": loaded, "peak": peak_bytes(), "seconds": seconds, "processor_seconds": busy}
print(json.dumps(found))
"""


def photo(folder: Path, height: int, width: int) -> Path:
    """A PNG that is neither flat nor noise."""
    path = folder / f"{height}x{width}.png"
    if not path.exists():
        ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] // np.array([7, 9, 13])
        save_image(path, Image((ramp % 256).astype(np.uint8)))
    return path


def measure(
    bundle: Path, backend: str, source: Path, scale: float, tile: int, threads: int
) -> dict[str, float]:
    """Bytes of a process with the model loaded and at its peak, and seconds of the upscale."""
    target = source.parent / "out.png"
    arguments = [str(v) for v in (bundle, backend, source, target, scale, tile, threads)]
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="made of igconv-small if it is not there")
    parser.add_argument("--backends", default="onnxruntime,openvino")
    parser.add_argument("--sides", default="2048:4,4096:2", help="SIDE:SCALE or HEIGHTxWIDTH:SCALE")
    parser.add_argument("--tiles", default="256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--linear", action="store_true", help="1 to 8 million pixels at x2, one thread"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sides = "1024:2,2048:2,4096x2048:2" if args.linear else args.sides
    threads = 1 if args.linear else args.threads
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        bundle = args.bundle or Path(scratch) / "igconv-small.bundle"
        if not bundle.exists():
            options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32",))
            export_bundle(find_checkpoint("igconv-small"), bundle, options)
        print(
            "backend           size scale  tile  loaded MB  peak MB  seconds  processor s"
            "  processor us/LR pixel"
        )
        for backend in args.backends.split(","):
            for pair in sides.split(","):
                size, scale = pair.split(":")
                height, width = (int(side) for side in (size.split("x") * 2)[:2])
                source = photo(Path(scratch), height, width)
                for tile in args.tiles.split(","):
                    found = measure(bundle, backend, source, float(scale), int(tile), threads)
                    rows.append({"backend": backend, "size": [height, width]})
                    rows[-1].update(scale=float(scale), tile=int(tile), **found)
                    busy = found["processor_seconds"]
                    print(
                        f"{backend:12} {size:>9} {scale:>5} {tile:>5}"
                        f"  {found['loaded'] / 1e6:9.0f}  {found['peak'] / 1e6:7.0f}"
                        f"  {found['seconds']:7.1f}  {busy:11.1f}"
                        f"  {busy * 1e6 / (height * width):21.2f}",
                        flush=True,
                    )
    if args.json:
        write_text(args.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
