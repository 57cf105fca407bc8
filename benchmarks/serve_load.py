"""Load on a server of ``scaleport serve``: is every answer right, and every bad request refused?

::

    python benchmarks/serve_load.py scaleport-any.bundle --requests 500 --bad 20 --kill

starts the server, sends requests of mixed sizes, scales and forms from several threads, and
compares every answer with the runtime in this process. With ``--kill`` one worker is killed with
SIGKILL in the middle: each request must then end in a right answer or in an error, none in silence.
Prints one JSON object; the exit code is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import scaleport
from scaleport.errors import BackendError, UsageError
from scaleport.serving.client import Client

SCALES = (1.3, 2.0, 2.7, 3.1, 4.0)
RAW, SHOWN = 1e-4, 1
TRIES = 3

BAD: list[tuple[str, Any]] = [
    ("no tensors", []),
    ("no image", [("scale", "FP32", [2], [2, 2])]),
    ("no scale", [("image", "UINT8", [4, 4, 3], [0] * 48)]),
    ("both", "size+scale"),
    ("unknown", [("pixels", "UINT8", [4, 4, 3], [0] * 48), ("scale", "FP32", [1], [2])]),
    ("twice", "twice"),
    ("rank", [("image", "UINT8", [4, 4], [0] * 16), ("scale", "FP32", [1], [2])]),
    ("channels", [("image", "UINT8", [4, 4, 4], [0] * 64), ("scale", "FP32", [1], [2])]),
    ("type", [("image", "INT64", [4, 4, 3], [0] * 48), ("scale", "FP32", [1], [2])]),
    ("short", [("image", "UINT8", [4, 4, 3], [0] * 47), ("scale", "FP32", [1], [2])]),
    ("empty", [("image", "UINT8", [0, 4, 3], []), ("scale", "FP32", [1], [2])]),
    ("above 255", [("image", "UINT8", [1, 1, 3], [0, 0, 256]), ("scale", "FP32", [1], [2])]),
    ("fraction", [("image", "UINT8", [1, 1, 3], [0, 0, 0.5]), ("scale", "FP32", [1], [2])]),
    ("words", [("image", "UINT8", [1, 1, 3], ["a", "b", "c"]), ("scale", "FP32", [1], [2])]),
    ("scale 0", "scale 0"),
    ("scale -2", "scale -2"),
    ("scale 99", "scale 99"),
    ("scale of 3", [("image", "UINT8", [4, 4, 3], [0] * 48), ("scale", "FP32", [3], [2, 2, 2])]),
    ("size 0", [("image", "UINT8", [4, 4, 3], [0] * 48), ("size", "INT64", [2], [0, 8])]),
    ("no file", [("image", "BYTES", [1], ["bm90IGFuIGltYWdl"]), ("scale", "FP32", [1], [2])]),
    ("no base64", [("image", "BYTES", [1], ["***"]), ("scale", "FP32", [1], [2])]),
    ("huge", [("image", "UINT8", [90000, 90000, 3], [0]), ("scale", "FP32", [1], [2])]),
]


def bad_body(what: Any) -> list[dict[str, Any]]:
    """The tensors of a malformed request."""
    image = ("image", "UINT8", [4, 4, 3], [0] * 48)
    if isinstance(what, str) and what.startswith("scale "):
        what = [image, ("scale", "FP32", [1], [float(what.split()[1])])]
    elif what == "twice":
        what = [image, image, ("scale", "FP32", [1], [2])]
    elif what == "size+scale":
        what = [image, ("scale", "FP32", [1], [2]), ("size", "INT64", [2], [8, 8])]
    return [{"name": n, "datatype": t, "shape": s, "data": d} for n, t, s, d in what]


def request(number: int) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Form, image, and scale or size of one request."""
    rng = np.random.default_rng(number)
    height, width = (int(n) for n in rng.integers(8, 56, 2))
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    scale = float(rng.choice(SCALES))
    asked: dict[str, Any] = {"scale": scale}
    if number % 5 == 1:
        asked = {"scale": (scale, float(rng.choice(SCALES)))}
    elif number % 5 == 2:
        asked = {"size": (height * 2 + 1, width * 3 - 1)}
    return ("uint8", "float", "file")[number % 3], pixels, asked


def send(client: Client, form: str, pixels: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    """The server's answer, as an array."""
    if form == "uint8":
        return client.upscale(pixels, **asked)
    if form == "float":
        return client.upscale(planes(pixels), **asked)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    text = base64.b64encode(encoded.getvalue()).decode()
    name = "size" if "size" in asked else "scale"
    values = list(np.broadcast_to(asked[name], (2,)).tolist())
    kind = "INT64" if name == "size" else "FP32"
    tensors = [
        {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]},
        {"name": name, "datatype": kind, "shape": [2], "data": values},
    ]
    answer = client.infer(tensors)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][0]))))


def planes(pixels: np.ndarray) -> np.ndarray:
    """float32 [1, 3, H, W]."""
    return (pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None]


def right(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether an answer is what this process computes."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    limit = SHOWN if expected.dtype == np.uint8 else RAW
    return float(np.abs(found.astype(np.float64) - expected).max()) <= limit


def children(parent: int) -> list[int]:
    """Process ids below a process, from /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            child = int(entry.parent.name)
            found += [child, *children(child)]
    return found


def workers(server: int) -> list[int]:
    """Process ids of the server's workers: the processes that multiprocessing started."""
    found = []
    for child in children(server):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"multiprocessing" in command and b"resource_tracker" not in command:
            found.append(child)
    return found


def main() -> int:
    """Run the load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--bad", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--kill", action="store_true", help="kill -9 a worker in the middle")
    args = parser.parse_args()

    local = scaleport.load(args.bundle, "onnxruntime", threads=1)
    started = time.perf_counter()
    options = ["--port", str(args.port), "--workers", str(args.workers), "-q"]
    command = [sys.executable, "-m", "scaleport.cli.main", "serve", str(args.bundle), *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    client = Client(f"http://127.0.0.1:{args.port}")
    counts = {"right": 0, "wrong": 0, "errors": 0, "resent": 0}
    refused: dict[str, str] = {}
    accepted: list[str] = []
    killed = None
    try:
        while not client.ready():
            if server.poll() is not None or time.perf_counter() - started > 300:
                raise BackendError("the server does not start")
            time.sleep(0.5)
        ready = time.perf_counter() - started

        def one(number: int) -> tuple[bool | None, int, float]:
            form, pixels, asked = request(number)
            begin = time.perf_counter()
            attempt = 0
            while True:
                try:
                    found = send(client, form, pixels, asked)
                    break
                except BackendError:
                    attempt += 1
                    if attempt == TRIES:
                        return None, attempt, time.perf_counter() - begin
                    time.sleep(1)
            seconds = time.perf_counter() - begin
            expected = local(planes(pixels) if form == "float" else pixels, **asked)
            return right(found, expected), attempt, seconds

        begin = time.perf_counter()
        times = []
        with ThreadPoolExecutor(args.clients) as pool:
            for done, (good, resent, seconds) in enumerate(pool.map(one, range(args.requests))):
                name = "errors" if good is None else "right" if good else "wrong"
                counts[name] += 1
                counts["resent"] += resent
                times.append(seconds)
                if args.kill and done == args.requests // 2:
                    killed = workers(server.pid)[0]
                    os.kill(killed, signal.SIGKILL)
        elapsed = time.perf_counter() - begin
        for name, what in BAD[: args.bad]:
            try:
                client.infer(bad_body(what))
                accepted.append(name)
            except UsageError as error:
                refused[name] = str(error)
            except BackendError as error:
                accepted.append(f"{name}: {error}")
        address = f"http://127.0.0.1:{args.port + 2}/metrics"
        with urllib.request.urlopen(address) as answer:
            lines = answer.read().decode().splitlines()
        names = ("model_infer", "scaleport_output")
        shown = [line for line in lines if line.startswith(names) and "_bucket{" not in line]
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            for process in [*children(server.pid), server.pid]:
                os.kill(process, signal.SIGKILL)
    report = {
        "requests": args.requests,
        **counts,
        "killed_worker": killed,
        "refused": refused,
        "not_refused": accepted,
        "seconds_to_ready": round(ready, 1),
        "requests_per_second": round(args.requests / elapsed, 1),
        "median_ms": round(1000 * float(np.median(times))),
        "p99_ms": round(1000 * float(np.percentile(times, 99))),
        "metrics": shown,
    }
    print(json.dumps(report, indent=1))
    return int(counts["wrong"] > 0 or counts["errors"] > 0 or bool(accepted))


if __name__ == "__main__":
    sys.exit(main())
