"""Photographs upscaled and compared with bicubic, then one network in every format, proven.

``make demo`` runs this, ``make demo-all`` the same with ``--all``. First the models of the package
upscale the sample photographs, and a comparison with bicubic is written. Then a checkpoint is
exported to every format, upscales on every backend that can run here, and every graph is measured
against PyTorch; with ``--all`` every checkpoint is. Everything is written to ``demo-out/``. The
exit code is 1 if a parity gate fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image as Pil
from PIL import ImageDraw, ImageFont
from rich.console import Console

import scaleport

HERE = Path(__file__).parent
EXPORTED = "scaleport-any"
"""What is exported and proven where not all is."""
SCALES = {"x2.7": 2.7, "x2x3.5": (2.0, 3.5)}
HEADING = 34
GAP = 10


@dataclass(frozen=True)
class Photograph:
    """A sample, the model that suits it, and the part of it that the comparison shows."""

    file: str
    model: str
    scale: int
    shown: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels of the sample."""


PHOTOGRAPHS = (
    Photograph("cat.png", "scaleport-m", 4, (72, 32, 172, 92)),
    Photograph("astronaut.jpg", "scaleport-photo", 3, (50, 4, 183, 84)),
)


def comparison(folder: Path) -> Pil.Image:
    """Upscale the photographs and put what bicubic makes of them beside it.

    Args:
        folder: where the upscaled photographs are written.

    Returns:
        A row for each photograph: bicubic left, the network right.
    """
    rows = []
    for photograph in PHOTOGRAPHS:
        source = HERE / photograph.file
        target = folder / f"{source.stem}_x{photograph.scale}.png"
        with scaleport.load(photograph.model) as upscaler:
            scaleport.upscale_file(upscaler, source, target, scale=photograph.scale)
        with Pil.open(source) as small, Pil.open(target) as large:
            bicubic = small.convert("RGB").resize(large.size, Pil.Resampling.BICUBIC)
            box = tuple(edge * photograph.scale for edge in photograph.shown)
            names = ("bicubic", photograph.model)
            rows.append(
                [
                    titled(f"{name}, x{photograph.scale}", picture.crop(box))
                    for name, picture in zip(names, (bicubic, large.convert("RGB")), strict=True)
                ]
            )
    width, height = rows[0][0].size
    sheet = Pil.new("RGB", (2 * width + GAP, len(rows) * height), "white")
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            sheet.paste(panel, (x * (width + GAP), y * height))
    return sheet


def titled(title: str, picture: Pil.Image) -> Pil.Image:
    """A picture below a line of text."""
    panel = Pil.new("RGB", (picture.width, picture.height + HEADING), "white")
    panel.paste(picture, (0, HEADING))
    pen = ImageDraw.Draw(panel)
    pen.text((4, 6), title, fill="black", font=ImageFont.load_default(20))
    return panel


def export_and_prove(name: str, out: Path, console: Console) -> bool:
    """Export a checkpoint, upscale with it on every backend, and measure its graphs.

    Returns:
        Whether all gates are met and every output has the size that was asked for.
    """
    bundle = out / f"{name}.bundle"
    console.rule(f"export {name}")
    start = time.perf_counter()
    options = scaleport.ExportOptions(overwrite=True)
    manifest = scaleport.export(name, bundle, options, cache=False).manifest
    written = ", ".join(f"{form}: {len(graphs)}" for form, graphs in manifest.graphs.items())
    console.print(f"{bundle}: graphs {written} in {time.perf_counter() - start:.0f} s")
    for form, reason in manifest.skipped.items():
        console.print(f"not written: {form}: {reason}")

    console.rule(f"upscale examples/sample.png with {name}")
    passed = True
    sample = scaleport.load_image(HERE / "sample.png")
    for backend, found in scaleport.backends().items():
        if not found.usable:
            console.print(f"{backend}: not run: {found.reason}")
            continue
        upscaler = scaleport.load(bundle, backend=backend)
        for label, scale in SCALES.items():
            start = time.perf_counter()
            pixels = upscaler(sample.pixels, scale=scale)
            seconds = time.perf_counter() - start
            expected = scaleport.Grid.from_scale(*sample.pixels.shape[:2], scale).output_size
            if pixels.shape[:2] != expected:
                console.print(f"{backend}: {pixels.shape} is not the size asked for")
                passed = False
            target = out / f"sample_{label}_{name}_{backend}.png"
            scaleport.save_image(target, replace(sample, pixels=pixels))
            console.print(f"{backend} ({upscaler.device}) {label}: {target} {seconds:.2f} s")

    console.rule(f"parity of {name} with PyTorch")
    options = scaleport.ValidationOptions(selection="quick", store=True)
    parity = scaleport.validate(bundle, options)
    scaleport.render_table(parity, console)
    return passed and all(result.passed for result in parity.results)


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where to write")
    parser.add_argument("--all", action="store_true", help="export and prove every checkpoint")
    parser.add_argument("--sheet", type=Path, help="write only the comparison, to this file")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)
    start = time.perf_counter()
    sheet: Path = given.sheet or out / "side-by-side.png"
    comparison(out).save(sheet, optimize=True)
    console.print(f"bicubic beside the models: {sheet}, {time.perf_counter() - start:.1f} s")
    if given.sheet is not None:
        return 0
    names = [model.name for model in scaleport.models()] if given.all else [EXPORTED]
    passed = True
    for name in names:
        passed = export_and_prove(name, out, console) and passed
    console.print("all parity gates passed" if passed else "a parity gate FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
