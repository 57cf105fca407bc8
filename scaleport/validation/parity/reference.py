"""The reference: the network as published, in PyTorch, float32, from the bundle's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from scaleport.aliases import Array
from scaleport.grid import Grid
from scaleport.models import load_checkpoint
from scaleport.validation.parity.cases import Scale, Shape
from scaleport.validation.pictures import pictures


class Weights(Protocol):
    """Anything that has the checkpoint of a model: a bundle, or a source of graphs."""

    def checkpoint(self) -> Path:
        """The verified checkpoint; raises ArtifactError."""
        ...


class Reference:
    """Test images and what the reference makes of them, each computed once.

    Args:
        bundle: whose checkpoint is the reference.
        threads: processor threads of PyTorch, process-wide; 0 leaves them alone.

    Raises:
        ArtifactError: if the checkpoint is missing or damaged.
    """

    def __init__(self, bundle: Weights, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._network = load_checkpoint(bundle.checkpoint())
        self._images: dict[Shape, Array] = {}
        self._outputs: dict[tuple[Shape, Scale], Array] = {}

    @property
    def version(self) -> str:
        """Version of PyTorch."""
        return str(torch.__version__)

    @property
    def versions(self) -> dict[str, str]:
        """The same by the name of the package, as reports list it."""
        return {torch.__name__: self.version}

    def image(self, shape: Shape) -> Array:
        """The test images of a shape, float32[N, 3, H, W] in [0, 1], all different."""
        if shape not in self._images:
            self._images[shape] = pictures(shape.height, shape.width, shape.batch)
        return self._images[shape]

    def output(self, shape: Shape, scale: Scale) -> Array:
        """The reference's output for the test image of a shape, float32[N, 3, Ho, Wo]."""
        key = (shape, scale)
        if key not in self._outputs:
            grid = Grid.from_scale(shape.height, shape.width, scale)
            self._outputs[key] = self.upscale(self.image(shape), grid)
        return self._outputs[key]

    def upscale(self, image: Array, grid: Grid) -> Array:
        """The reference's output for any image float32[N, 3, H, W] and grid, not kept."""
        with torch.inference_mode():
            result: Array = self._network(torch.from_numpy(image), grid).numpy()
        return result
