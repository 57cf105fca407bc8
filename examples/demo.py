"""The whole path on one picture: export, upscale on every backend, compare, prove.

``make demo`` runs this. It exports the shipped checkpoints to every format, upscales
``examples/sample.png`` at x2.7 and (2, 3.5) on every backend that can run here, writes the
pictures and a comparison with bicubic to ``demo-out/``, and prints the parity tables. The exit
code is 1 if a parity gate fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont
from rich.console import Console

import scaleport
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.imaging.files import load_image, save_image
from scaleport.runtimes.registry import backend_names, get_backend
from scaleport.shipped import shipped_weights
from scaleport.validation.parity.proof import validate
from scaleport.validation.report.summary import render_table

HERE = Path(__file__).parent
SCALES = {"x2.7": 2.7, "x2x3.5": (2.0, 3.5)}
COMPARED = ("scaleport-any", "scaleport-s", "scaleport-m")
CROP = (96, 56, 192, 120)  # left, top, right, bottom in pixels of the sample


def side_by_side(sample: Pil.Image, results: dict[str, np.ndarray], target: Path) -> None:
    """Write crops of bicubic and of each result next to each other, enlarged twice for viewing."""
    left, top, right, bottom = (round(edge * 2.7) for edge in CROP)
    size = next(iter(results.values())).shape[1::-1]
    panels = {"bicubic": sample.resize(size, Pil.Resampling.BICUBIC)}
    panels |= {name: Pil.fromarray(pixels) for name, pixels in results.items()}
    width, height = (right - left) * 2, (bottom - top) * 2
    sheet = Pil.new("RGB", (width * len(panels) + 12 * (len(panels) - 1), height + 40), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, picture) in enumerate(panels.items()):
        crop = picture.crop((left, top, right, bottom))
        x = i * (width + 12)
        sheet.paste(crop.resize((width, height), Pil.Resampling.NEAREST), (x, 40))
        pen.text((x + 4, 6), name, fill="black", font=ImageFont.load_default(24))
    sheet.save(target)


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where to write")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)
    sample = load_image(HERE / "sample.png")
    compared: dict[str, np.ndarray] = {}
    passed = True
    for name, checkpoint in shipped_weights().items():
        bundle = out / f"{name}.bundle"
        console.rule(f"export {name}")
        start = time.perf_counter()
        with console.status("loading"):
            manifest = export_bundle(checkpoint, bundle, ExportOptions(overwrite=True))
        written = ", ".join(f"{form}: {len(graphs)}" for form, graphs in manifest.graphs.items())
        console.print(f"{bundle}: graphs {written} in {time.perf_counter() - start:.0f} s")
        for form, reason in manifest.skipped.items():
            console.print(f"not written: {form}: {reason}")

        console.rule(f"upscale examples/sample.png with {name}")
        for backend in backend_names():
            found = get_backend(backend).availability()
            if not found.usable:
                console.print(f"{backend}: not run: {found.reason}")
                continue
            upscaler = scaleport.load(bundle, backend=backend)
            for label, scale in SCALES.items():
                start = time.perf_counter()
                pixels = upscaler(sample.pixels, scale=scale)
                seconds = time.perf_counter() - start
                expected = Grid.from_scale(*sample.pixels.shape[:2], scale).output_size
                if pixels.shape[:2] != expected:
                    console.print(f"{backend}: {pixels.shape} is not the size asked for")
                    passed = False
                target = out / f"sample_{label}_{name}_{backend}.png"
                save_image(target, replace(sample, pixels=pixels))
                console.print(f"{backend} ({upscaler.device}) {label}: {target} {seconds:.2f} s")
                if backend == "onnxruntime" and label == "x2.7" and name in COMPARED:
                    compared[name] = pixels

        console.rule(f"parity of {name} with PyTorch")
        parity = validate(bundle, selection="quick")
        render_table(parity, console)
        passed = passed and all(result.passed for result in parity.results)
    if compared:
        target = out / "side-by-side.png"
        with Pil.open(HERE / "sample.png") as picture:
            side_by_side(picture.convert("RGB"), compared, target)
        console.print(f"bicubic beside the models: {target}")
    console.print("all parity gates passed" if passed else "a parity gate FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
