"""A contact sheet: what a recipe gives a network to see, and what it asks for."""

from __future__ import annotations

from pathlib import Path

import msgspec
from PIL import Image, ImageDraw

from scaleport.aliases import Uint8Array
from scaleport.atomic import atomic_path
from scaleport.training.cache import ImageCache, split_holdout
from scaleport.training.data import Sampler
from scaleport.training.recipe import Recipe

SHEET_FILE = "samples.png"

_TILE, _GAP, _TEXT, _PER_ROW = 160, 6, 14, 4


def draw_sheet(recipe: Recipe, cache: ImageCache, count: int, path: Path) -> None:
    """Write the first ``count`` samples of a run as one PNG: LR on the left, HR on the right.

    Both are shown at the same size, LR as squares of its pixels.

    Raises:
        OutputError: if the file cannot be written.
        UsageError: if no image is large enough.
    """
    pairs = first_samples(recipe, cache, count)
    columns = min(_PER_ROW, len(pairs))
    cell_w, cell_h = 2 * _TILE + 2 * _GAP, _TILE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * cell_w, -(-len(pairs) // columns) * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (lr, hr) in enumerate(pairs):
        left, top = number % columns * cell_w, number // columns * cell_h
        draw.text((left, top), f"x{len(hr) / len(lr):.2f}", fill="black")
        for side, patch in enumerate((lr, hr)):
            shown = Image.fromarray(patch).resize((_TILE, _TILE), Image.Resampling.NEAREST)
            sheet.paste(shown, (left + side * (_TILE + 2), top + _TEXT))
    with atomic_path(path) as new:
        sheet.save(new, "PNG")


def first_samples(
    recipe: Recipe, cache: ImageCache, count: int
) -> list[tuple[Uint8Array, Uint8Array]]:
    """LR uint8[p, p, 3] and HR uint8[S, S, 3] of the first samples that a run trains on.

    They come as a batch groups them: by size, from the first step on.

    Raises:
        UsageError: if no image is large enough.
    """
    train, _ = split_holdout(len(cache), recipe.validation.images)
    # Whole patches, whatever part of them the network would be trained on; the pixels are the same.
    whole = msgspec.structs.replace(recipe, queries=0)
    sampler = Sampler(cache, train, whole)
    pairs: list[tuple[Uint8Array, Uint8Array]] = []
    step = 0
    while len(pairs) < count:
        for group in sampler[step]:
            pairs += zip(group["lr"], group["target"], strict=True)
        step += 1
    return pairs[:count]
