"""INT8 against fp32 of the same backend, and against the training form in PyTorch eager.

Every figure is a ratio of times measured side by side in one run, as in ``speed.py``. Weights are
random and calibration pictures made up: speed does not depend on them. Every layer that may be
int8 is; a quality budget may keep a few of them float. Run it on an otherwise idle machine::

    python benchmarks/int8.py --bundles int8-bundles --export-only
    python benchmarks/int8.py --bundles int8-bundles --threads 2 --rounds 5 --json int8.json
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ratio_tables import BASELINE, main

import scaleport
from scaleport.benchmark.timing import ratio, rounds
from scaleport.calibration.images import Sampling
from scaleport.calibration.quantiser import CalibrationOptions, Quantiser
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.imaging.files import Image, save_image
from scaleport.models import build_network, load_checkpoint, save_checkpoint
from scaleport.runtimes.view import View
from scaleport.validation.pictures import picture

SIDE, SCALE = 96, 4
BACKENDS = ("onnxruntime", "openvino")
HEADS: dict[str, dict[str, object]] = {"liif": {"name": "liif"}, "igconv": {"name": "igconv"}}


def export(scratch: Path, name: str) -> Path:
    """EDSR-baseline with an upsampler, fp32 and int8."""
    bundle = scratch / f"{name}-int8.bundle"
    if bundle.exists():
        return bundle
    torch.manual_seed(0)
    config = {
        "encoder": BASELINE,
        "upsampler": HEADS[name],
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
    }
    checkpoint = scratch / f"{name}.safetensors"
    save_checkpoint(build_network(config).eval(), checkpoint)
    images = scratch / "pictures"
    images.mkdir(exist_ok=True)
    for number in range(4):
        pixels = picture(256, 256, seed=number)[0].transpose(1, 2, 0)
        save_image(images / f"{number}.png", Image((pixels * 255).astype(np.uint8)))
    settings = CalibrationOptions(max_loss=math.inf, sampling=Sampling(patches=8, held_out=1))
    options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32", "int8"))
    export_bundle(checkpoint, bundle, options, quantise=Quantiser(images, settings))
    return bundle


def measure(bundle: Path, threads: int, count: int) -> dict[str, object]:
    """Whole upscales and the last stage alone, LR 96x96 at x4."""
    image = picture(SIDE, SIDE)
    grid = Grid.from_scale(SIDE, SIDE, SCALE)
    network = load_checkpoint(bundle / "model.safetensors")
    tensor = torch.from_numpy(image)

    def training_form() -> object:
        with torch.inference_mode():
            return network(tensor, grid)

    whole: dict[str, Callable[[], object]] = {"torch training form": training_form}
    last: dict[str, Callable[[], object]] = {}
    for backend in BACKENDS:
        for precision in ("fp32", "int8"):
            upscaler = scaleport.load(bundle, backend, precision, threads)
            view = View(upscaler.stages, image, upscaler.policy)
            view.render(SCALE)  # encodes; what follows renders only
            name = f"{backend} {precision}"
            whole[name] = lambda u=upscaler: u(image, scale=SCALE)
            last[name] = lambda v=view: v.render(SCALE)
    result: dict[str, object] = {}
    for what, contenders in (("whole", whole), ("render", last)):
        seconds = rounds(contenders, count)
        table = {}
        for name in contenders:
            row = {"median_s": statistics.median(seconds[name])}
            if name.endswith("int8"):
                row["faster_than_fp32"] = ratio(seconds, name.replace("int8", "fp32"), name)
            if what == "whole":
                row["faster_than_training_form"] = ratio(seconds, "torch training form", name)
            table[name] = row
        result[what] = table
    return result


def export_all(scratch: Path) -> None:
    """Export what is measured."""
    for name in HEADS:
        export(scratch, name)


def measure_all(scratch: Path, threads: int, count: int) -> dict[str, object]:
    """A table per upsampler."""
    return {name: measure(export(scratch, name), threads, count) for name in HEADS}


if __name__ == "__main__":
    main(__doc__, export_all, measure_all)
