"""What the runtime adds to bare calls of its sessions.

The bare way feeds ready-made arrays to the library's own sessions, one call per stage. The runtime
way is the call that applications make: it cuts tiles, makes the grid, checks what it feeds and what
it gets, and decodes in pieces that fit the processor's cache, so it can also come out faster. Whole
calls vary by more than what is looked for, so a second figure is taken within each call: the time
outside the library's calls, as a part of the time inside them::

    python benchmarks/overhead.py MODEL.bundle --threads 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import scaleport
from scaleport.benchmark.timing import Spread, Work, ratios, rounds, surroundings
from scaleport.grid import Grid
from scaleport.runtimes.scales import native_scale
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy


def bare(upscaler: Upscaler, image: np.ndarray, grid: Grid) -> Work:
    """The library's own calls, one per stage, with everything else done beforehand."""
    query = upscaler.manifest.family == "query"
    stage = "render" if query else f"render_x{native_scale(upscaler.manifest, grid)}"
    encode, render = (library(upscaler, name) for name in ("encode", stage))
    wanted = {spec.name for spec in upscaler.stages.session(stage).inputs}
    feeds = {name: value for name, value in grid.feeds().items() if name in wanted}
    return lambda: render({**encode({"image": image}), **feeds})


def library(upscaler: Upscaler, stage: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One stage as a call of the library itself."""
    session: Any = upscaler.stages.session(stage)
    inputs = [spec.name for spec in session.inputs]
    outputs = [spec.name for spec in session.outputs]
    if upscaler.backend == "onnxruntime":
        return lambda feeds: dict(zip(outputs, session._session.run(outputs, feeds), strict=True))

    def infer(feeds: dict[str, Any]) -> dict[str, Any]:
        with session._requests.borrowed() as request:
            found = request.infer([feeds[name] for name in inputs], share_inputs=True)
            return {name: found[place] for place, name in enumerate(outputs)}

    return infer


class Timed:
    """A library's session that counts the time inside its calls."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.seconds = 0.0

    def run(self, *given: Any) -> Any:
        """Of ONNX Runtime."""
        return self._timed(self.session.run, *given)

    def infer(self, *given: Any, **named: Any) -> Any:
        """Of OpenVINO."""
        return self._timed(self.session.infer, *given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def _timed(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = call(*given, **named)
        self.seconds += time.perf_counter() - start
        return result


def outside(upscaler: Upscaler, work: Work, count: int) -> float:
    """Time of a call outside the library's calls, as a part of that inside; median over calls."""
    work()  # loads the graphs
    sessions: list[Any] = list(upscaler.stages._sessions.values())
    # This benchmark has one caller, so that OpenVINO's pool holds one request.
    pools = upscaler.backend == "openvino"
    clocks = [Timed(s._requests._free[0] if pools else s._session) for s in sessions]
    parts = []
    try:
        for session, clock in zip(sessions, clocks, strict=True):
            if pools:
                session._requests._free = [clock]
            else:
                session._session = clock
        for _ in range(count):
            for clock in clocks:
                clock.seconds = 0.0
            start = time.perf_counter()
            work()
            taken = time.perf_counter() - start
            inside = sum(clock.seconds for clock in clocks)
            parts.append((taken - inside) / inside)
    finally:
        for session, clock in zip(sessions, clocks, strict=True):
            if pools:
                session._requests._free = [clock.session]
            else:
                session._session = clock.session
    return statistics.median(parts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--sides", nargs="+", type=int, default=[96, 256])
    parser.add_argument("--scales", nargs="+", type=float, default=[2, 4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    print(json.dumps(surroundings(arguments.threads)))
    for path in arguments.bundles:
        for backend in arguments.backends:
            upscaler = scaleport.load(path, backend=backend, threads=arguments.threads)
            whole = scaleport.load(
                path,
                backend=backend,
                threads=arguments.threads,
                policy=TilePolicy(tile=0, render_pixels=1 << 30),
            )
            for side in arguments.sides:
                image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
                pixels = (image[0].transpose(1, 2, 0) * 255).astype(np.uint8)
                for scale in arguments.scales:
                    grid = Grid.from_scale(side, side, scale)
                    ways: dict[str, Work] = {
                        "bare": bare(upscaler, image, grid),
                        "in one piece": lambda w=whole, i=image, s=scale: w(i, scale=s),
                        "float32": lambda u=upscaler, i=image, s=scale: u(i, scale=s),
                        "uint8": lambda u=upscaler, i=pixels, s=scale: u(i, scale=s),
                    }
                    seconds = rounds(ways, arguments.rounds, least=0.1)
                    found = {
                        "bundle": path.name,
                        "backend": backend,
                        "side": side,
                        "scale": scale,
                        "bare_ms": 1e3 * Spread.of(seconds["bare"]).median,
                        **{
                            f"{way}_over_bare": ratios(seconds, way, "bare").median
                            for way in ways
                            if way != "bare"
                        },
                    }
                    for way, used in (
                        ("in one piece", whole),
                        ("float32", upscaler),
                        ("uint8", upscaler),
                    ):
                        found[f"{way}_outside"] = outside(used, ways[way], arguments.rounds)
                    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
