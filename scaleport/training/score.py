"""``python -m scaleport.training.score CHECKPOINT --data DIR``: PSNR on benchmark images.

The protocol of published tables: LR made as MATLAB's ``imresize`` makes it, PSNR on luma of 8-bit
images, ``ceil(scale)`` pixels left out on each side, mean over the images of a set. Single-channel
files count as luma.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from scaleport.errors import ImageError, ScaleportError, UsageError
from scaleport.grid import Grid, output_length
from scaleport.imaging.resample import imresize
from scaleport.models import Network, load_checkpoint
from scaleport.training.cache import SUFFIXES
from scaleport.validation.metrics import psnr_y

SCALES = (2.0, 2.7, 3.0, 4.0, 6.0)
SETS = ("Set5", "Set14")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """Mean luma PSNR in dB over the images of one set at one scale."""

    images: str
    scale: float
    bicubic: float
    model: float


def read_images(folder: Path) -> list[Pixels]:
    """All images of a folder, sorted by name: uint8 [H, W, 3], or [H, W] if single-channel.

    Raises:
        UsageError: if there are none.
        ImageError: if one cannot be decoded.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f"no images in {folder}")
    images = []
    for path in files:
        try:
            with Image.open(path) as image:
                images.append(np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"cannot read {path}: {error}") from error
    return images


def make_pair(image: Pixels, scale: float) -> tuple[Pixels, Pixels]:
    """LR of ``floor(size / scale)`` pixels, and HR cropped from the top left to match it.

    Raises:
        ImageError: if the image has fewer than ``scale`` pixels on a side.
    """
    height, width = (math.floor(side / scale + 1e-9) for side in image.shape[:2])
    if min(height, width) < 1:
        raise ImageError(f"an image of {image.shape[:2]} pixels is too small for x{scale:g}")
    hr = image[: output_length(height, scale), : output_length(width, scale)]
    return imresize(hr, height, width, round_passes=True).astype(np.uint8), hr


@torch.no_grad()
def upscale(network: Network, lr: Pixels, height: int, width: int) -> npt.NDArray[np.float32]:
    """Run the reference network on one 8-bit image; values about 0 .. 255, not rounded.

    A single channel is fed as three equal ones, and their mean taken back.
    """
    rgb = lr if lr.ndim == 3 else np.repeat(lr[..., None], 3, axis=2)
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255
    grid = Grid.from_size(lr.shape[0], lr.shape[1], height, width)
    out: npt.NDArray[np.float32] = network(image, grid)[0].permute(1, 2, 0).numpy() * 255
    return out if lr.ndim == 3 else out.mean(axis=2)


def supported(network: Network, scale: float) -> bool:
    """Whether a scale lies within what the network declares."""
    return network.limits.min <= scale <= network.limits.max


def score(
    network: Network, folder: Path, scales: tuple[float, ...] = SCALES, images: str = "Set5"
) -> list[Score]:
    """Score a network, and bicubic beside it, at those scales that it supports.

    Args:
        network: in eval mode.
        folder: the images.
        scales: scales to score at; others than the network's are left out.
        images: name of the set, for the result.

    Raises:
        UsageError: if the folder holds no image.
        ImageError: if an image cannot be decoded or is too small.
    """
    scores = []
    pictures = read_images(folder)
    for scale in scales:
        if not supported(network, scale):
            continue
        border = math.ceil(scale)
        model, bicubic = [], []
        for picture in pictures:
            lr, hr = make_pair(picture, scale)
            height, width = hr.shape[:2]
            model.append(psnr_y(upscale(network, lr, height, width), hr, border))
            bicubic.append(psnr_y(imresize(lr, height, width), hr, border))
        scores.append(Score(images, scale, float(np.mean(bicubic)), float(np.mean(model))))
    return scores


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scaleport.training.score",
        description="Luma PSNR of checkpoints on benchmark images, against bicubic.",
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, help="safetensors files")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with one folder of images per set"
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="default: Set5 Set14")
    parser.add_argument("--scales", nargs="+", type=float, default=list(SCALES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    console = Console()
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        for path in options.checkpoints:
            network = load_checkpoint(path)
            table = Table("set", "scale", "bicubic", "model", "gain", title=path.name)
            rows = results.setdefault(path.name, [])
            for name in options.sets:
                for row in score(network, options.data / name, tuple(options.scales), name):
                    rows.append(asdict(row))
                    table.add_row(
                        row.images,
                        f"x{row.scale:g}",
                        f"{row.bicubic:.2f}",
                        f"{row.model:.2f}",
                        f"{row.model - row.bicubic:+.2f}",
                    )
            if not options.json:
                console.print(table)
    except ScaleportError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, soft_wrap=True)
        return error.exit_code
    if options.json:
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
