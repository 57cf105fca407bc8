"""What can be scored: a checkpoint in PyTorch, a bundle on any backend, and bicubic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scaleport.aliases import Uint8Array
from scaleport.errors import UsageError
from scaleport.extras import needs
from scaleport.grid import Grid
from scaleport.imaging.resample import imresize
from scaleport.runtimes.registry import checkpoint_backend
from scaleport.shipped import checkpoint_name, find_checkpoint

Render = Callable[[Uint8Array, int, int], npt.NDArray[Any]]
"""LR uint8[H, W(, 3)], output height and width; values about 0 .. 255 of the same layout."""


@dataclass(frozen=True)
class Subject:
    """A way to upscale.

    Attributes:
        name: what tables call it.
        backend: name of the backend.
        precision: of its graphs.
        device: provider and device that it really runs on.
        scales: lowest and highest scale.
        render: upscales one image.
    """

    name: str
    backend: str
    precision: str
    device: str
    scales: tuple[float, float]
    render: Render


def bicubic() -> Subject:
    """Bicubic interpolation, the row that every table begins with."""
    return Subject("bicubic", "numpy", "fp64", "CPU", (1.0, float("inf")), imresize)


def from_checkpoint(path: Path, threads: int = 0) -> Subject:
    """The reference network of a checkpoint, in float32 on the CPU.

    Raises:
        ArtifactError: if the file is no checkpoint or is damaged.
        BackendError: if PyTorch is not installed.
    """
    with needs("torch", "the score of a checkpoint"):
        import torch

        from scaleport.models import load_checkpoint

    if threads:
        torch.set_num_threads(threads)
    network = load_checkpoint(path)

    @torch.no_grad()
    def render(lr: Uint8Array, height: int, width: int) -> npt.NDArray[Any]:
        rgb = lr if lr.ndim == 3 else np.repeat(lr[..., None], 3, axis=2)
        image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255
        grid = Grid.from_size(lr.shape[0], lr.shape[1], height, width)
        out: npt.NDArray[np.float32] = network(image, grid)[0].permute(1, 2, 0).numpy() * 255
        return out if lr.ndim == 3 else out.mean(axis=2)

    limits = (network.limits.min, network.limits.max)
    return Subject(checkpoint_name(path), checkpoint_backend().name, "fp32", "CPU", limits, render)


def from_bundle(path: Path, backend: str, precision: str, threads: int, device: str) -> Subject:
    """A bundle on a backend.

    Raises:
        ArtifactError: if the bundle is damaged.
        BackendError: if the backend cannot run here.
        UsageError: if a name is unknown, or the bundle has no such graphs.
    """
    from scaleport.runtimes.upscaler import load

    upscaler = load(path, backend or "auto", precision, threads, device)

    def render(lr: Uint8Array, height: int, width: int) -> npt.NDArray[Any]:
        out = upscaler(lr.astype(np.float32) / 255, size=(height, width))
        return out.astype(np.float64) * 255

    scale = upscaler.manifest.scale
    limits = (scale.min, scale.max)
    return Subject(
        upscaler.manifest.name,
        upscaler.backend,
        upscaler.precision,
        upscaler.device,
        limits,
        render,
    )


def open_subject(
    given: str, backend: str = "", precision: str = "", threads: int = 0, device: str = ""
) -> Subject:
    """A bundle's directory, a checkpoint's file or the name of a shipped one.

    Raises:
        ScaleportError: what is wrong with it, or with the backend.
    """
    path = Path(given)
    if path.is_dir():
        return from_bundle(path, backend, precision, threads, device)
    found = find_checkpoint(given)
    own = checkpoint_backend().name
    if backend not in ("", "auto", own) or precision not in ("", "fp32") or device:
        raise UsageError(
            f"{given} is a checkpoint, which runs in torch, fp32, on the CPU; "
            "export it to score other backends and precisions"
        )
    return from_checkpoint(found, threads)
