"""Metrics by name, from scikit-image and torchmetrics where they are more than a mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleport.aliases import Float64Array
from scaleport.errors import BackendError, ImageError, UsageError
from scaleport.validation.metrics import psnr


@dataclass(frozen=True)
class Metric:
    """A number about two images.

    Attributes:
        name: its name on the command line.
        unit: shown behind the name.
        digits: decimals worth printing.
        needs_rgb: whether it compares RGB whatever the protocol compares.
        measure: maps result and ground truth, float64[h, w] or [h, w, 3] with values 0 .. 255.
    """

    name: str
    unit: str
    digits: int
    needs_rgb: bool
    measure: Callable[[Float64Array, Float64Array], float]


def _psnr(result: Float64Array, truth: Float64Array) -> float:
    return psnr(result, truth, 255)


def _ssim(result: Float64Array, truth: Float64Array) -> float:
    """11x11 Gaussian of sigma 1.5, only where it fits into the image, mean over planes."""
    if min(truth.shape[:2]) < 11:
        raise ImageError(f"SSIM needs 11x11 pixels within the border, got {truth.shape[:2]}")
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise _missing("ssim", error) from error
    _, everywhere = structural_similarity(
        result,
        truth,
        data_range=255.0,
        channel_axis=2 if truth.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Beyond these 5 pixels the window is mirrored; published values leave them out.
    return float(everywhere[5:-5, 5:-5].mean())


def _lpips(result: Float64Array, truth: Float64Array) -> float:
    """AlexNet features (arXiv 1801.03924) of RGB."""
    try:
        from torchmetrics.functional import image as functional
    except ImportError as error:
        raise _missing("lpips", error) from error
    images = [_nchw(planes).float() / 127.5 - 1 for planes in (result, truth)]
    try:
        return float(functional.learned_perceptual_image_patch_similarity(*images, "alex"))
    except ModuleNotFoundError as error:
        raise BackendError(
            "lpips needs torchvision; run: pip install torchvision lpips, in the version that "
            "fits the installed torch"
        ) from error
    except OSError as error:  # what torch.hub raises when it cannot download
        raise BackendError(
            "lpips needs the AlexNet weights that torchvision downloads, and they cannot be "
            f"fetched: {error}; put them into the torch hub cache, or leave lpips out"
        ) from error


def _missing(metric: str, error: ImportError) -> BackendError:
    return BackendError(f"{metric} needs {error.name or error}; run: pip install 'scaleport[eval]'")


def _nchw(planes: Float64Array) -> Any:
    import torch

    return torch.from_numpy(np.atleast_3d(planes)).permute(2, 0, 1)[None].contiguous()


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "dB", 2, False, _psnr),
        Metric("ssim", "", 4, False, _ssim),
        Metric("lpips", "", 4, True, _lpips),
    )
}
"""All of them, by name."""


def find_metrics(names: tuple[str, ...]) -> list[Metric]:
    """The metrics of some names, with their libraries tried on a small image.

    Raises:
        BackendError: if a library or its weights are missing.
        UsageError: if a name is unknown or none is given.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise UsageError(f"unknown metric {', '.join(unknown)!r}; known: {', '.join(METRICS)}")
    trial = np.zeros((64, 64, 3))
    found = [METRICS[name] for name in names]
    for metric in found:
        metric.measure(trial, trial)
    return found
