"""Who takes part in a benchmark: a bundle on its backends, and PyTorch beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scaleport.benchmark.timing import Work
from scaleport.bundle.reader import Bundle
from scaleport.errors import ArtifactError, BackendError, UsageError
from scaleport.grid import Grid
from scaleport.imaging.convert import Planes
from scaleport.runtimes.base import precision_text
from scaleport.runtimes.scales import native_scale
from scaleport.runtimes.upscaler import load

if TYPE_CHECKING:
    import torch

EAGER: Final = "pytorch eager"
COMPILED: Final = "pytorch compile"
PYTORCH: Final = {"eager": EAGER, "compile": COMPILED}
"""Ways to run the checkpoint in PyTorch, without the runtime."""


@dataclass(frozen=True)
class Contender:
    """One way to upscale."""

    name: str
    precision: str
    backend: str
    """Name of the runtime's backend; empty for PyTorch on its own."""
    upscale: Callable[[Planes, float], object]
    """Takes float32[1, 3, H, W] and a scale."""
    inference_precision: str = ""
    """What is computed in, where that is not what graphs are written in."""

    @property
    def label(self) -> str:
        """Name and precisions."""
        return f"{self.name} {precision_text(self.precision, self.inference_precision)}"

    def on(self, image: Planes, scale: float) -> Work:
        """The work of upscaling one image."""
        return lambda: self.upscale(image, scale)


def of_backend(
    bundle: Bundle, backend: str, precision: str, threads: int, inference_precision: str = ""
) -> Contender:
    """A bundle on one backend, through the same call that applications make.

    Raises:
        UsageError: if the bundle has no such graphs.
        BackendError: if the backend cannot run here.
        ArtifactError: if the bundle is damaged.
    """
    other = "" if inference_precision == precision else inference_precision
    upscaler = load(bundle, backend, precision, threads, inference_precision=other)

    def upscale(image: Planes, scale: float) -> object:
        return upscaler(image, scale=scale)

    return Contender(backend, precision, backend, upscale, other)


def missing_for(way: str) -> str:
    """Why a way of :data:`PYTORCH` cannot run here, one sentence; empty if it can.

    Raises:
        UsageError: if there is no such way.
    """
    if way not in PYTORCH:
        raise UsageError(f"PyTorch runs {' or '.join(PYTORCH)}, not {way!r}")
    if find_spec("torch") is None or find_spec("safetensors") is None:
        return "torch is not installed: pip install 'scaleport[torch]'"
    compilers: Iterable[str] = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl")
    if way == "compile" and not any(shutil.which(name) for name in compilers if name):
        return "torch.compile needs a C++ compiler, and none is found; install g++ or clang++"
    return ""


def of_pytorch(bundle: Bundle, way: str, threads: int) -> Contender:
    """The bundle's checkpoint in PyTorch, in float32.

    ``eager`` is the training form as published; ``compile`` is what ``torch.compile`` makes of the
    deploy form's stages, the same ones that are exported.

    Raises:
        BackendError: if it cannot run here, see :func:`missing_for`.
        ArtifactError: if the bundle has no checkpoint.
    """
    why = missing_for(way)
    if why:
        raise BackendError(why)
    import torch

    from scaleport.models import load_checkpoint

    torch.set_num_threads(threads)
    network = load_checkpoint(bundle.checkpoint()).eval()

    def eager(image: Planes, scale: float) -> object:
        grid = Grid.from_scale(image.shape[2], image.shape[3], scale)
        with torch.inference_mode():
            return network(torch.from_numpy(image), grid).numpy()

    if way == "eager":
        return Contender(EAGER, "fp32", "", eager)
    form = network.deploy()
    if form.prepare is not None and bundle.manifest.family == "query":
        raise BackendError("torch.compile is only compared on networks without a prepare stage")
    compiled: dict[str, Any] = {}

    def stage(name: str, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = form.stage(name)
        if found is None:
            raise ArtifactError(f"this network has no stage {name!r} to compile")
        if name not in compiled:
            # Compiled anew for another size: the best that it can do for each.
            compiled[name] = torch.compile(found.module, dynamic=False)
        made = compiled[name](*(values[port.name] for port in found.inputs))
        results = [made] if isinstance(made, torch.Tensor) else list(made)
        return dict(zip([port.name for port in found.outputs], results, strict=True))

    def run(image: Planes, scale: float) -> object:
        grid = Grid.from_scale(image.shape[2], image.shape[3], scale)
        with torch.inference_mode():
            values = {"image": torch.from_numpy(image)}
            values |= {name: torch.from_numpy(feed) for name, feed in grid.feeds().items()}
            values |= stage("encode", values)
            render = "render"
            if bundle.manifest.family == "lattice":
                render = f"render_x{native_scale(bundle.manifest, grid)}"
            return stage(render, values)["upscaled"].numpy()

    return Contender(COMPILED, "fp32", "", run)


def noise(height: int, width: int) -> Planes:
    """float32[1, 3, height, width]: speed does not depend on what is in a picture."""
    return np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)
