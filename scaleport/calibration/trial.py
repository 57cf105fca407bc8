"""Running a model whose graphs are in memory, and measuring it on held-out images."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from scaleport.aliases import Array, HostFeeds
from scaleport.bundle.manifest import Graph, Manifest
from scaleport.calibration.images import ImageSet, Patch, Sampling, held_pairs
from scaleport.errors import ArtifactError, UsageError
from scaleport.export.by_format import save_as
from scaleport.grid import Grid
from scaleport.imaging.pairs import Pair
from scaleport.runtimes.base import Backend, GraphFile, Session, SessionOptions, hosted
from scaleport.runtimes.registry import int8_judges, require
from scaleport.runtimes.stages import Stages, names
from scaleport.runtimes.view import TilePolicy, View
from scaleport.validation.metrics import psnr_y

Quantised = frozenset[tuple[str, str]]
"""Keys of the layers that are int8."""

_WINDOW: Final = 4096
"""Most output pixels that a decoder makes of a calibration patch."""
_WHOLE_SIDE: Final = 96
"""Output rows and columns of a patch, where a decoder must make all pixels at once."""
_RANK_IMAGES: Final = 3
_RANK_SIDE: Final = 128
_POLICY: Final = TilePolicy(tile=0)


class TrialSource:
    """Graphs of a model that is not written yet, each in a file of its own.

    A runtime may read the weights of a file for as long as it runs the graph, so no file is ever
    written a second time. The files go away with the source.

    Args:
        manifest: what is known of the model; its graphs are not read.
        entries: the stages, by name.
        build: gives the graph of a stage.
        scratch: directory for graph files.
    """

    def __init__(
        self,
        manifest: Manifest,
        entries: Mapping[str, Graph],
        build: Callable[[str], onnx.ModelProto],
        scratch: Path,
    ) -> None:
        self._manifest = manifest
        self._entries = entries
        self._build = build
        self._folder = Path(tempfile.mkdtemp(dir=scratch))
        self._files: dict[tuple[str, str], Path] = {}
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        return self._manifest

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """The stages, the same for every backend."""
        return dict(self._entries)

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """The graph of a stage in the backend's format; built and written when first asked for.

        Raises:
            UsageError: if the stage is unknown, or the format cannot be written here.
        """
        entry = self._entries.get(stage)
        if entry is None:
            raise UsageError(f"this model has no stage {stage!r}")
        key = (backend.graph_format, stage)
        if key not in self._files:
            folder = self._folder / backend.graph_format
            self._files[key] = save_as(backend.graph_format, self._build(stage), folder, stage)
        inputs, outputs = names(entry.inputs), names(entry.outputs)
        return GraphFile(self._files[key], stage, precision, inputs, outputs)

    def checkpoint(self) -> Path:
        """There is none."""
        raise ArtifactError(f"{self.manifest.name} is not written yet and has no checkpoint")


class Workbench:
    """Models with some layers in int8, to be measured.

    Args:
        manifest: what is known of the model.
        entries: its stages by name.
        build: gives the graph of a stage with some layers in int8.
        scratch: directory for graph files.
        threads: processor threads; 0 leaves it to the backends.
    """

    def __init__(
        self,
        manifest: Manifest,
        entries: Mapping[str, Graph],
        build: Callable[[str, Quantised], onnx.ModelProto],
        scratch: Path,
        threads: int = 0,
    ) -> None:
        self.manifest = manifest
        self.entries = entries
        self.build = build
        self.scratch = scratch
        self.options = SessionOptions(threads=threads)
        self._float: dict[str, Stages] = {}

    def trial(self, quantised: Quantised = frozenset(), backend: str = "") -> Stages:
        """The model with these layers in int8.

        Args:
            quantised: keys of the layers that are int8.
            backend: what runs it; empty for the first backend that judges int8.
        """
        backend = backend or int8_judges()[0].name
        if backend not in self._float:
            self._float[backend] = self._stages(frozenset(), backend)
        plain = self._float[backend]
        return self._stages(quantised, backend, plain) if quantised else plain

    def _stages(self, quantised: Quantised, backend: str, plain: Stages | None = None) -> Stages:
        chosen, found = require(backend)
        by_stage: dict[str, set[tuple[str, str]]] = {}
        for key in quantised:
            by_stage.setdefault(key[0], set()).add(key)

        def build(stage: str) -> onnx.ModelProto:
            return self.build(stage, frozenset(by_stage.get(stage, ())))

        def shared(stage: str) -> Session | None:
            # Stages without int8 are the same in every trial.
            return None if plain is None or stage in by_stage else plain.session(stage)

        source = TrialSource(self.manifest, self.entries, build, self.scratch)
        return Stages(source, chosen, found, "int8", self.options, shared)


def stage_feeds(stages: Stages, patch: Patch, stage: str) -> HostFeeds:
    """What a stage is fed for a patch.

    A decoder makes at most 4096 of the patch's output pixels, unless it has to make all at once.
    """
    manifest = stages.manifest
    image, grid = patch.image, patch.grid
    if manifest.tiling == "not-allowed" and max(grid.shape) > _WHOLE_SIDE:
        height, width = (
            max(1, n * min(N, _WHOLE_SIDE) // N)
            for n, N in zip(grid.input_size, grid.output_size, strict=True)
        )
        scale = tuple(N / n for n, N in zip(grid.input_size, grid.output_size, strict=True))
        image = np.ascontiguousarray(image[:, :, :height, :width])
        grid = Grid.from_scale(height, width, scale)
    modulation = stages.modulation(grid) if manifest.family == "query" else {}
    known: HostFeeds = {"image": image, **hosted(modulation)}
    inputs = set(stages.inputs(stage))
    if stage != "encode":
        known |= hosted(stages.encode(image, modulation))
        if manifest.tiling != "not-allowed":
            grid = _window(grid)
        known |= grid.feeds()
    return {name: value for name, value in known.items() if name in inputs}


def _window(grid: Grid) -> Grid:
    """Part of a grid, of at most so many pixels that a decoder's layers fit into memory.

    It lies at the first border, in the middle or at the last border, as the sizes have it.
    """
    rows, cols = grid.shape
    side = math.isqrt(_WINDOW)
    width = min(cols, max(side, _WINDOW // max(1, min(rows, side))))
    height = min(rows, max(1, _WINDOW // width))
    y, x = (rows - height) * (rows % 3) // 2, (cols - width) * (cols % 3) // 2
    return grid.region(y, x, y + height, x + width)


@dataclass(frozen=True)
class Score:
    """Mean luma PSNR in dB over the held-out images at one scale."""

    scale: float
    psnr: float


class Judge:
    """Scores trials on held-out images, and against the float32 model.

    Args:
        images: the set; only its held-out part is read.
        sampling: how much of an image is used.
        scales: see :func:`scaleport.validation.loss.judged_scales`.
    """

    def __init__(self, images: ImageSet, sampling: Sampling, scales: Sequence[float]) -> None:
        self.scales = tuple(scales)
        # A crop of a few hundred pixels each: small, and needed for every trial.
        self._pairs = {scale: list(held_pairs(images, sampling, scale)) for scale in self.scales}
        few = replace(images, held_out=images.held_out[:_RANK_IMAGES])
        small = replace(sampling, held_side=min(sampling.held_side, _RANK_SIDE))
        self._small = {scale: list(held_pairs(few, small, scale)) for scale in self.scales}

    def scores(self, stages: Stages) -> tuple[Score, ...]:
        """PSNR per scale: uint8 in and out, as applications see it."""
        found = []
        for scale, pairs in self._pairs.items():
            values = [_psnr(stages, pair, math.ceil(scale)) for pair in pairs]
            found.append(Score(scale, float(np.mean(values))))
        return tuple(found)

    def outputs(self, stages: Stages) -> Iterator[Iterator[Array]]:
        """Float outputs for small crops of a few images, per scale: to compare trials with."""
        for pairs in self._small.values():
            yield (_upscaled(stages, _planes(pair.lr), pair.hr.shape[:2]) for pair in pairs)

    def truths(self) -> Iterator[Iterator[Array]]:
        """Ground truth of :meth:`outputs`."""
        for pairs in self._small.values():
            yield (_planes(pair.hr) for pair in pairs)


def _planes(image: Array) -> Array:
    planes = image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(planes)


def _psnr(stages: Stages, pair: Pair, border: int) -> float:
    found = psnr_y(_upscaled(stages, pair.lr, pair.hr.shape[:2]), pair.hr, border)
    # Equal images have no finite PSNR, and a mean has to be one.
    return min(found, 100.0)


def _upscaled(stages: Stages, image: Array, size: Iterable[int]) -> Array:
    height, width = size
    return View(stages, image, _POLICY).render(size=(int(height), int(width)))
