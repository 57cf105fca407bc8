"""Deploy form against training form, and cached kernels against a fixed-scale model.

Every figure is a ratio of times measured side by side in one run: all contenders of a table take
turns, round by round, and the ratios are medians over rounds. Run it on an otherwise idle machine::

    python benchmarks/speed.py --bundles speed-bundles --export-only
    python benchmarks/speed.py --bundles speed-bundles --threads 2 --rounds 5 --json speed.json
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from published_liif import upscale
from ratio_tables import BASELINE, main

import scaleport
from scaleport.benchmark.timing import ratio, ratios, rounds
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.models import build_network, save_checkpoint
from scaleport.runtimes.stages import Stages


def export(upsampler: dict[str, object], scratch: Path, name: str) -> Path:
    """Export EDSR-baseline with an upsampler and random weights; speed does not depend on them."""
    bundle = scratch / f"{name}.bundle"
    if bundle.exists():
        return bundle
    torch.manual_seed(0)
    config = {"encoder": BASELINE, "upsampler": upsampler}
    checkpoint = scratch / f"{name}.safetensors"
    save_checkpoint(build_network(config), checkpoint)
    options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32",))
    export_bundle(checkpoint, bundle, options)
    return bundle


def export_all(scratch: Path) -> None:
    """Export what the tables need, so that nothing but the measurement remains."""
    export({"name": "liif"}, scratch, "liif")
    export({"name": "igconv"}, scratch, "igconv")
    for scale in (2, 3, 4):
        export({"name": "spconv", "scale": scale}, scratch, f"spconv{scale}")


def liif(scratch: Path, threads: int, count: int) -> dict[str, object]:
    """LIIF with EDSR-baseline, LR 96x96 at x4: PyTorch eager against the deploy form.

    Eager is measured twice: as the operations of the published evaluation, and as Scaleport's
    training form, the reference, which computes the same with fewer copies.
    """
    bundle = export({"name": "liif"}, scratch, "liif")
    image = np.random.default_rng(0).random((1, 3, 96, 96), dtype=np.float32)
    grid = Grid.from_scale(96, 96, 4)
    from scaleport.models import load_checkpoint

    network = load_checkpoint(bundle / "model.safetensors")
    tensor = torch.from_numpy(image)

    def training_form() -> np.ndarray:
        with torch.inference_mode():
            return network(tensor, grid).numpy()

    def published() -> np.ndarray:
        with torch.inference_mode():
            return upscale(network, tensor, *grid.output_size).numpy()

    contenders: dict[str, Callable[[], object]] = {
        "torch published operations": published,
        "torch training form": training_form,
    }
    for backend in ("torch", "onnxruntime", "openvino"):
        upscaler = scaleport.load(bundle, backend=backend, threads=threads)
        contenders[f"{backend} deploy form"] = lambda u=upscaler: u(image, scale=4)
    reference = training_form()
    errors = {
        name: float(np.abs(np.asarray(work()) - reference).max())
        for name, work in contenders.items()
    }
    seconds = rounds(contenders, count)
    return {
        name: {
            "median_s": statistics.median(seconds[name]),
            "faster_than_published": ratio(seconds, "torch published operations", name),
            "faster_than_training_form": ratio(seconds, "torch training form", name),
            "max_abs": errors[name],
        }
        for name in contenders
    }


def lattice(scratch: Path, threads: int, count: int) -> dict[str, object]:
    """Render stage of IGConv against SPConv of the same scale, LR 192x192."""
    result: dict[str, object] = {}
    igconv = export({"name": "igconv"}, scratch, "igconv")
    feature = np.random.default_rng(0).random((1, 64, 192, 192), dtype=np.float32)
    for scale in (2, 3, 4):
        spconv = export({"name": "spconv", "scale": scale}, scratch, f"spconv{scale}")
        for backend in ("onnxruntime", "openvino"):
            stages: dict[str, Stages] = {
                name: scaleport.load(bundle, backend=backend, threads=threads).stages
                for name, bundle in (("igconv", igconv), ("spconv", spconv))
            }
            contenders: dict[str, Callable[[], object]] = {
                name: lambda s=s, scale=scale: s.render_lattice({"feature": feature}, scale)
                for name, s in stages.items()
            }
            seconds = rounds(contenders, 20 * count, least=0.05)
            paired = ratios(seconds, "igconv", "spconv")
            result[f"{backend} x{scale}"] = {
                "igconv_ms": 1e3 * statistics.median(seconds["igconv"]),
                "spconv_ms": 1e3 * statistics.median(seconds["spconv"]),
                "igconv_over_spconv": paired.median,
                "quartiles": [paired.low, paired.high],
            }
    return result


def measure(folder: Path, threads: int, count: int) -> dict[str, object]:
    """All tables."""
    return {
        "liif_96x96_x4": liif(folder, threads, count),
        "igconv_against_spconv": lattice(folder, threads, count),
    }


if __name__ == "__main__":
    main(__doc__, export_all, measure)
