"""A view at a new zoom against the same view upscaled from the start.

A viewer shows a rectangle of output pixels. "from the start" opens the image and renders the
rectangle; "new zoom" renders it with the features of its tiles already there. Both take turns. The
image is as large as needed for the view to lie in its middle; every tile the view touches counts::

    python benchmarks/zoom.py MODEL.bundle --threads 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import scaleport
from scaleport.benchmark.timing import Spread, ratios, rounds, surroundings
from scaleport.grid import Grid


def measure(
    bundle: Path, backend: str, scale: float, side: int, threads: int, count: int
) -> dict[str, object]:
    """Seconds of both ways to get a view of ``side`` x ``side`` pixels, and their ratio."""
    upscaler = scaleport.load(bundle, backend=backend, threads=threads)
    halo = upscaler.manifest.receptive_field
    # What the view shows, and all that its pixels depend on.
    length = int(side / scale) + 2 * halo + 2
    image = np.random.default_rng(0).integers(0, 256, (length, length, 3), np.uint8)
    height, width = Grid.from_scale(length, length, scale).output_size
    top, left = (height - side) // 2, (width - side) // 2
    region = (top, left, top + side, left + side)
    opened = upscaler.open(image)
    opened.render(scale + 0.25, region=region)  # an earlier zoom: all tiles are encoded
    contenders: dict[str, Callable[[], object]] = {
        "from the start": lambda: upscaler.open(image).render(scale, region=region),
        "new zoom": lambda: opened.render(scale, region=region),
    }
    seconds = rounds(contenders, count, least=0.2)
    first, again = (Spread.of(seconds[name]) for name in contenders)
    share = ratios(seconds, "new zoom", "from the start")
    return {
        "backend": backend,
        "scale": scale,
        "image": [length, length],
        "from_the_start_ms": 1e3 * first.median,
        "new_zoom_ms": 1e3 * again.median,
        "part": share.median,
        "quartiles": [share.low, share.high],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--scales", nargs="+", type=float, default=[1.25, 1.5, 2, 3, 4])
    parser.add_argument("--side", type=int, default=512, help="of the view, in output pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(json.dumps(surroundings(arguments.threads)))
    for bundle in arguments.bundles:
        for backend in arguments.backends:
            for scale in arguments.scales:
                found = measure(
                    bundle, backend, scale, arguments.side, arguments.threads, arguments.rounds
                )
                print(json.dumps({"bundle": bundle.name, **found}), flush=True)


if __name__ == "__main__":
    main()
