"""Files that the browser runtime is compared with.

``python tests/web/web_vectors.py FOLDER BUNDLE...`` writes them.
Everything is computed by the Python side: the grid, resampling, and what ONNX Runtime renders.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import scaleport
from scaleport.grid import MAX_LENGTH, Axis, output_length
from scaleport.imaging.convert import Layout, from_planes, to_planes
from scaleport.imaging.resample import imresize
from scaleport.runtimes.view import TilePolicy
from scaleport.validation import selftest

AXES = [
    (1, 1, 0, 1, 0),
    (1, 5, 0, 5, 0),
    (7, 3, 0, 3, 0),
    (15, 41, 0, 41, 0),
    (15, 41, 7, 30, 4),
    (240, 648, 0, 648, 0),
    (97, 200, 3, 190, 11),
    (MAX_LENGTH, MAX_LENGTH - 1, MAX_LENGTH - 60, MAX_LENGTH - 1, 5),
    (MAX_LENGTH - 3, MAX_LENGTH, MAX_LENGTH - 60, MAX_LENGTH, 0),
]

CASES: list[dict[str, Any]] = [
    {"scale": 2},
    {"scale": 2.7},
    {"scale": 1.3},
    {"scale": [2, 3.5]},
    {"size": [71, 83]},
    {"scale": 3.7, "region": [11, 20, 90, 101]},
]

# Random weights answer far outside [0, 1]; the image is small, so that tests stay short.
IMAGE = (31, 37)


def write(folder: Path, bundles: Sequence[Path], cases: Sequence[dict[str, Any]] = CASES) -> None:
    """Write ``vectors.json``, its arrays, copies of the bundles and the golden tile."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    models = []
    for bundle in bundles:
        shutil.copytree(bundle, folder / bundle.name, dirs_exist_ok=True)
        models.extend(_model(folder, bundle, tile, rng, cases) for tile in (0, 16))
    tile = selftest.GOLDEN / selftest.BUNDLE
    shutil.copytree(tile, folder / selftest.BUNDLE, dirs_exist_ok=True)
    expected = np.load(selftest.GOLDEN / selftest.EXPECTED)
    golden = {
        "bundle": selftest.BUNDLE,
        "expected": _store(folder, "golden", expected[0])["file"],
    }
    found = {
        "axes": [_axis(*axis) for axis in [*AXES, *_random_axes(rng)]],
        "lengths": _lengths(rng),
        "resamples": _resamples(folder, rng),
        "golden": golden,
        "models": models,
    }
    (folder / "vectors.json").write_text(json.dumps(found))


def _random_axes(rng: np.random.Generator) -> list[tuple[int, ...]]:
    axes = []
    for _ in range(30):
        n, N = (int(v) for v in rng.integers(1, 4000, 2))
        start = int(rng.integers(0, N))
        axes.append((n, N, start, min(N, start + 50), int(rng.integers(0, n))))
    return axes


def _axis(n: int, N: int, start: int, stop: int, origin: int) -> dict[str, Any]:
    axis = Axis(n, N, start, stop, origin)
    ranges = [(0, n), (n // 3, n - n // 4)]
    return {
        "n": n,
        "N": N,
        "start": start,
        "stop": stop,
        "origin": origin,
        "index": axis.index.tolist(),
        "offset": axis.offset.view(np.uint32).tolist(),
        "owned": [[*pair, *axis.owned(*pair)] for pair in ranges],
    }


def _lengths(rng: np.random.Generator) -> list[list[float]]:
    given = [(15, 2.3), (15, 2.7), (1, 0.1), (5, 0.5), (1 << 20, 15.9)]
    given += [(int(n), round(float(s), 1)) for n, s in rng.uniform(1, 900, (60, 2))]
    return [[n, s, output_length(n, s)] for n, s in given]


def _resamples(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    found = []
    sizes = [(40, 70), (11, 9), (17, 23), (29, 5)]
    for number, (height, width) in enumerate(sizes):
        border = ("symmetric", "replicate")[number % 2]
        planes = rng.random((3, 17, 23), dtype=np.float32)
        rows = Axis(17, height, height // 4, height)
        cols = Axis(23, width, 0, width - width // 4)
        made = imresize(planes.transpose(1, 2, 0), rows, cols, border).transpose(2, 0, 1)
        found.append(
            {
                "image": _store(folder, f"resample-{number}", planes),
                "rows": [height, rows.start, rows.stop],
                "cols": [width, cols.start, cols.stop],
                "border": border,
                "expected": _store(folder, f"resampled-{number}", made),
            }
        )
    return found


def _model(
    folder: Path,
    bundle: Path,
    tile: int,
    rng: np.random.Generator,
    cases: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    name = f"{bundle.name}-{tile}"
    pixels = rng.integers(0, 256, (*IMAGE, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    (folder / f"{name}.rgba").write_bytes(pixels.tobytes())
    upscaler = scaleport.load(bundle, "onnxruntime", "fp32", policy=TilePolicy(tile=tile))
    top = upscaler.manifest.scale.max
    view = upscaler.open(to_planes(pixels[..., :3]))
    made = []
    for number, case in enumerate(cases):
        asked = case if np.max(case.get("scale", 1)) <= top else {**case, "scale": top}
        planes = view.render(**asked)
        rgb = from_planes(planes, Layout(3, np.dtype(np.uint8)))
        shown = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
        (folder / f"{name}-{number}.rgba").write_bytes(shown.tobytes())
        made.append(
            {
                **asked,
                "expected": _store(folder, f"{name}-{number}", planes[0]),
                "pixels": f"{name}-{number}.rgba",
            }
        )
    return {
        "bundle": bundle.name,
        "image": {"file": f"{name}.rgba", "height": IMAGE[0], "width": IMAGE[1]},
        "policy": {"tile": tile, "renderPixels": 1500},
        "cases": made,
    }


def _store(folder: Path, name: str, planes: np.ndarray) -> dict[str, Any]:
    values = np.ascontiguousarray(planes, "<f4")
    (folder / f"{name}.f32").write_bytes(values.tobytes())
    return {"file": f"{name}.f32", "height": planes.shape[1], "width": planes.shape[2]}


if __name__ == "__main__":
    write(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
