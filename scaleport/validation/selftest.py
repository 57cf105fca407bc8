"""The golden tile: a tiny network that comes with the package, and what PyTorch made of a picture.

It tells a backend that computes wrongly on this machine from a bundle that is wrong, and needs
neither torch nor a bundle.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scaleport.errors import ScaleportError, one_line
from scaleport.runtimes.base import Backend
from scaleport.runtimes.upscaler import load
from scaleport.validation.metrics import max_abs, psnr
from scaleport.validation.parity.gates import Gates

GOLDEN: Final = Path(str(files("scaleport"))) / "golden"
BUNDLE: Final = "tile.bundle"
EXPECTED: Final = "expected.npy"
SIZE: Final = (15, 21)
"""LR rows and columns; 15 * 2.7 ends in .5."""
SCALE: Final = 2.7


@dataclass(frozen=True)
class SelfTest:
    """What one backend made of the golden tile; ``note`` says what is wrong, if anything is."""

    backend: str
    device: str
    max_abs: float | None
    psnr: float | None
    seconds: float
    passed: bool
    note: str = ""


def golden_image() -> npt.NDArray[np.float32]:
    """The picture: float32[1, 3, 15, 21] in [0, 1], from integers alone."""
    count = 3 * SIZE[0] * SIZE[1]
    values = (np.arange(count, dtype=np.int64) * 7919) % 257
    image: npt.NDArray[np.float32] = (values / 256).astype(np.float32).reshape(1, 3, *SIZE)
    return image


def self_test(backend: str) -> SelfTest:
    """Run the golden tile on a backend that can run here, in float32, against stored values."""
    start = time.perf_counter()
    device, worst, ratio, note = "", None, None, ""
    try:
        expected: npt.NDArray[Any] = np.load(GOLDEN / EXPECTED, allow_pickle=False)
        upscaler = load(GOLDEN / BUNDLE, backend, "fp32")
        found = upscaler(golden_image(), SCALE)
        device = upscaler.device
        worst, ratio = max_abs(found, expected), psnr(found, expected)
        note = Gates().fp32.failure(worst, ratio)
    except (ScaleportError, OSError) as error:
        note = one_line(error)
    finite = ratio is not None and bool(np.isfinite(ratio))
    return SelfTest(
        backend=backend,
        device=device,
        max_abs=worst if worst is not None and np.isfinite(worst) else None,
        psnr=ratio if finite else None,
        seconds=round(time.perf_counter() - start, 3),
        passed=not note,
        note=note,
    )


def has_tile(backend: Backend) -> bool:
    """Whether there is a golden tile for a backend.

    TensorRT has none: an engine is bound to one version and GPU and cannot come with a package.
    """
    return backend.runs_checkpoint or (GOLDEN / BUNDLE / backend.graph_format).is_dir()
