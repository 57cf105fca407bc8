"""Vectors that the grids of the mobile samples must give: ``examples/grid_vectors.json``.

``python examples/make_grid_vectors.py`` writes the file from :mod:`scaleport.grid`. Every case is a
line of its own, so that a program without a JSON library reads it too: numbers in brackets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scaleport.grid import Axis, output_length

TARGET = Path(__file__).with_name("grid_vectors.json")
# Ties of the size rule that no binary float says exactly, scales below 1, and large axes.
SIZES = [
    (n, scale)
    for n in (1, 5, 15, 21, 25, 35, 240, 4000)
    for scale in (0.5, 1.0, 1.1, 1.3, 2.0, 2.3, 2.7, 3.37, 8.0)
]
AXES = [
    (1, 1, 0, 1, 0),
    (1, 8, 0, 8, 0),
    (5, 3, 0, 3, 0),
    (7, 19, 0, 19, 0),
    (15, 20, 3, 11, 4),
    (240, 648, 600, 648, 200),
    (999, 3367, 1700, 1716, 500),
    (4096, 32768, 32752, 32768, 4000),
    ((1 << 24) - 1, 1 << 24, (1 << 24) - 5, 1 << 24, (1 << 24) - 9),
]


def text() -> str:
    """The file: sizes as ``n, scale, N``, axes as ``n, N, start, stop, origin`` and results.

    Results are the indices, then the bits of the float32 fractions as integers.
    """
    sizes = [[n, scale, output_length(n, scale)] for n, scale in SIZES]
    axes = []
    for n, length, start, stop, origin in AXES:
        axis = Axis(n, length, start, stop, origin)
        bits = axis.offset.view(np.int32)
        axes.append([n, length, start, stop, origin, *axis.index.tolist(), *bits.tolist()])
    parts = []
    for name, rows in (("sizes", sizes), ("axes", axes)):
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        parts.append(f' "{name}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
