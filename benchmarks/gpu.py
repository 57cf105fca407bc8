"""What the runtime takes on an NVIDIA GPU, beside ten lines of plain PyTorch.

Host to host, uint8 in and out: the picture begins and ends in the memory of the program, as it does
for an application. PyTorch eager runs the network as it was trained, in the same precision as the
runtime beside it: float32 with TF32 switched off, float32 with TF32, float16 in channels-last
order. All are warmed up and take turns in one run::

    python benchmarks/gpu.py                      # the shipped networks, torch and ONNX Runtime
    python benchmarks/gpu.py --device cpu --sizes 64 --scales 2 --networks scaleport-s   # a trial

``--parity`` takes the quick parity grid of both backends in fp32 instead of times, and shows that
TF32 under the name of fp32 would fail it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before onnxruntime, which finds CUDA's libraries through it

import scaleport
from scaleport.benchmark.timing import Spread, ratios, rounds, surroundings
from scaleport.errors import ScaleportError
from scaleport.grid import Grid
from scaleport.models import load_checkpoint
from scaleport.runtimes.torch_precision import IEEE, TF32, float32_arithmetic

WEIGHTS = Path(scaleport.__file__).parent / "weights"
PRECISIONS = ("fp32", "tf32", "fp16")
CASES = ((512, 2.0), (512, 4.0), (1024, 4.0))
EAGER_PIECE = 1 << 21
"""Output pixels that eager decodes at once; more would not fit a GPU's memory at 4096x4096."""


def eager(name: str, precision: str, device: str) -> Callable[[np.ndarray, float], np.ndarray]:
    """The plain way: network to the device, picture up, pixels down."""
    network = load_checkpoint(WEIGHTS / f"{name}.safetensors").eval().to(device)
    half = precision == "fp16"
    if half:
        network = network.half().to(memory_format=torch.channels_last)

    def call(image: np.ndarray, scale: float) -> np.ndarray:
        with torch.inference_mode(), float32_arithmetic(TF32 if precision == "tf32" else IEEE):
            x = torch.from_numpy(image).to(device).permute(2, 0, 1)[None]
            x = x.to(torch.float16 if half else torch.float32) / 255
            grid = Grid.from_scale(*image.shape[:2], scale)
            constants = network.prepare(grid)
            features = network.encode(x, constants)
            height, width = grid.output_size
            rows = height if network.upsampler.native_scales else max(1, EAGER_PIECE // width)
            pieces = [
                network.render(features, grid.region(y, 0, min(height, y + rows), width), constants)
                for y in range(0, height, rows)
            ]
            y = torch.cat(pieces, 2)[0] if len(pieces) > 1 else pieces[0][0]
            pixels = (y.float() * 255).round_().clamp_(0, 255).to(torch.uint8)
            return pixels.permute(1, 2, 0).contiguous().cpu().numpy()

    return call


def runtimes(
    bundle: Path, device: str, backends: list[str], notes: list[str]
) -> Iterator[tuple[str, str, Any]]:
    """Backend, precision and upscaler of everything that runs here."""
    for backend in backends:
        for precision in PRECISIONS:
            lowered = "tf32" if precision == "tf32" else ""
            place = device if backend == "torch" else ("" if device == "cpu" else device)
            try:
                up = scaleport.load(
                    bundle,
                    backend=backend,
                    precision="fp16" if precision == "fp16" else "fp32",
                    inference_precision=lowered,
                    device=place,
                )
                notes.append(f"{backend} {precision}: {up.device}")
            except ScaleportError as error:
                notes.append(f"{backend} {precision}: {error}")
                continue
            yield backend, precision, up


def bundle_of(name: str, arguments: argparse.Namespace, folder: Path) -> Path:
    """A shipped network as a bundle, which is exported where there is none."""
    bundle: Path = (arguments.bundles or folder) / f"{name}.bundle"
    if not bundle.exists():
        from scaleport.export.exporter import export_bundle
        from scaleport.export.plan import ExportOptions

        weights = WEIGHTS / f"{name}.safetensors"
        options = ExportOptions(formats=("onnx",), precisions=("fp32", "fp16"))
        export_bundle(weights, bundle, options)
    return bundle


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row per network, size, scale and precision."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    chosen = [(s, x) for s in arguments.sizes for x in arguments.scales] or CASES
    for name in arguments.networks:
        bundle = bundle_of(name, arguments, folder)
        notes: list[str] = []
        found = list(runtimes(bundle, arguments.device, arguments.backends, notes))
        print("\n".join(notes), file=sys.stderr)
        for side, scale in chosen:
            image = rng.integers(0, 256, (side, side, 3), np.uint8)
            for precision in PRECISIONS:
                ways: dict[str, Callable[[], Any]] = {}
                with contextlib.suppress(RuntimeError):
                    plain = eager(name, precision, arguments.device)
                    plain(image, scale)
                    ways["eager"] = lambda p=plain, i=image, s=scale: p(i, s)
                for backend, kind, up in found:
                    if kind == precision:
                        ways[backend] = lambda u=up, i=image, s=scale: u(i, s)
                if "eager" not in ways:
                    continue
                seconds = rounds(ways, arguments.rounds, arguments.least)
                row: dict[str, Any] = {
                    "network": name,
                    "LR": f"{side}x{side}",
                    "scale": scale,
                    "precision": precision,
                    "eager ms": round(1e3 * Spread.of(seconds["eager"]).median, 2),
                }
                for backend in arguments.backends:
                    if backend in ways:
                        row[f"{backend} ms"] = round(1e3 * Spread.of(seconds[backend]).median, 2)
                        ratio = ratios(seconds, backend, "eager")
                        row[f"{backend} / eager"] = round(ratio.median, 3)
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def parity(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Cases of the quick grid that are outside of the gate of fp32, per backend."""
    from scaleport.validation.parity.options import ValidationOptions
    from scaleport.validation.parity.proof import validate

    rows = []
    for name in arguments.networks:
        bundle = bundle_of(name, arguments, folder)
        for backend in arguments.backends:
            for asked in ("fp32", "tf32"):
                try:
                    options = ValidationOptions(
                        [backend], ["fp32"], "quick", inference_precision=asked
                    )
                    results = validate(bundle, options).results
                except ScaleportError as error:
                    rows.append(
                        {"network": name, "backend": backend, "asked": asked, "note": str(error)}
                    )
                    continue
                worst = max(r.max_abs for r in results if r.max_abs is not None)
                outside = sum(not r.passed for r in results)
                rows.append(
                    {
                        "network": name,
                        "backend": backend,
                        "asked": asked,
                        "cases": len(results),
                        "outside their gate": outside,
                        "worst": worst,
                    }
                )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", default=["scaleport-s", "scaleport-m", "scaleport-any"]
    )
    parser.add_argument("--backends", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--sizes", nargs="*", type=int, default=[])
    parser.add_argument("--scales", nargs="*", type=float, default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--least", type=float, default=0.05, help="seconds of one turn")
    parser.add_argument("--bundles", type=Path, help="folder with NAME.bundle; else exported now")
    parser.add_argument("--parity", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        machine = surroundings(torch.get_num_threads())
        if torch.cuda.is_available():
            machine["gpu"] = torch.cuda.get_device_name()
        print(json.dumps(machine))
        take = parity if arguments.parity else measure
        print(table(take(arguments, Path(folder))))


if __name__ == "__main__":
    main()
