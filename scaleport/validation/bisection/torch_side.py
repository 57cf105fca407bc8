"""The PyTorch side of the search: both forms of the network, and all tensors inside of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from scaleport.aliases import Array, HostFeeds
from scaleport.bundle.manifest import Graph
from scaleport.bundle.reader import Bundle
from scaleport.errors import ArtifactError
from scaleport.export.by_format import trace_for
from scaleport.export.mixed import keep_float32
from scaleport.export.plan import DTYPES
from scaleport.export.whole import Front, resample_stage
from scaleport.grid import Grid, subpixel_centres
from scaleport.models.base import DeployForm, Stage
from scaleport.models.checkpoint import load_checkpoint
from scaleport.models.network import Network
from scaleport.runtimes.scales import native_scale
from scaleport.validation.bisection.divergence import (
    TOLERANCES,
    Compared,
    Divergence,
    share,
    statistics,
)
from scaleport.validation.bisection.traced import Tensor, reference_tensors
from scaleport.validation.bisection.whole_reference import part_of, whole_tensors

FOREIGN: Final = "the network has no stage {!r}; the checkpoint is not this bundle's"
_DEPLOY: Final = "deploy"
_RESAMPLE: Final = "resample"


@dataclass(frozen=True)
class Picture:
    """What is fed: an image float32[1, 3, H, W], the grid that is asked for, and its scale."""

    image: Array
    grid: Grid
    scale: tuple[float, float]


class TorchSide:
    """The network of a checkpoint beside the graphs of a bundle.

    Args:
        bundle: the bundle.
        graphs: its graphs of one format and precision, by stage.
        precision: what they were exported in.
        format: what they were made from, which decides how tensors are named.
        picture: what is fed.
        checkpoint: the weights.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: Mapping[str, Graph],
        precision: str,
        format: str,
        picture: Picture,
        checkpoint: Path,
    ) -> None:
        self.manifest, self.graphs = bundle.manifest, graphs
        self.precision, self.format, self.picture = precision, format, picture
        self._checkpoint = checkpoint
        self.network = self._load()
        self.exact: DeployForm = self._load().deploy(torch.float32)
        self.built: DeployForm = self._load().deploy(DTYPES[precision])
        self._programs: dict[str, tuple[torch.export.ExportedProgram, Stage, Stage]] = {}
        native = self.manifest.scale.native
        self.native = native_scale(self.manifest, picture.grid) if native else 0

    def _load(self) -> Network:
        return load_checkpoint(self._checkpoint)

    def stage(self, name: str, feeds: HostFeeds, chosen: HostFeeds) -> dict[str, Tensor]:
        """All tensors of a stage.

        Args:
            name: the stage.
            feeds: its inputs.
            chosen: values that tensors are to have in place of their own, by name.
        """
        self._built_once(name)
        return reference_tensors(*self._programs[name], feeds, chosen)

    def _built(self, name: str) -> tuple[Stage, Stage]:
        """A stage as it was exported, and in float32."""
        if name == _RESAMPLE:
            limits = self.manifest.scale
            stage = resample_stage(max(limits.native) / limits.min)
            return stage, stage
        built, exact = self.built.stage(name), self.exact.stage(name)
        if built is None or exact is None:
            raise ArtifactError(FOREIGN.format(name))
        kept = self._kept(built, self.graphs[name])
        if kept:
            # Wraps the modules of the full precision, which are not to be changed: others of them.
            twin = self._load().deploy(torch.float32).stage(name)
            built = keep_float32([built], [twin] if twin is not None else [], kept)[0]
        return built, exact

    def _kept(self, stage: Stage, graph: Graph) -> tuple[str, ...]:
        """Modules that a float16 build kept in float32, of which the manifest has the paths."""
        if self.precision != "fp16":
            return ()
        paths = dict(stage.module.named_modules())
        return tuple(word for word in graph.float32_nodes.split("; ") if word and word in paths)

    def whole(self, kind: Front, chosen: HostFeeds) -> dict[str, Tensor]:
        """All tensors of the whole graph, of which ``kind`` is the second input."""
        names = [name for name in ("prepare", "encode") if self.built.stage(name) is not None]
        if self.built.render is not None:
            names.append("render")
        else:
            names.append([s for s in self.graphs if s.startswith("render_x")][-1])
        if self.native:
            names.append(_RESAMPLE)
        stages = tuple(self._built_once(name) for name in names)

        def run(name: str, feeds: HostFeeds) -> dict[str, Tensor]:
            prefix = f"{part_of(name)}/"
            own = {n.removeprefix(prefix): v for n, v in chosen.items() if n.startswith(prefix)}
            return self.stage(name, feeds, own)

        picture = self.picture
        return whole_tensors(picture.image, picture.scale, self.manifest, stages, run, kind)

    def _built_once(self, name: str) -> Stage:
        if name not in self._programs:
            built, exact = self._built(name)
            self._programs[name] = (trace_for(self.format, built), built, exact)
        return self._programs[name][1]

    def feeds(self, wanted: Sequence[str]) -> dict[str, HostFeeds]:
        """What every stage is fed, made by the stages before it in PyTorch and float32."""
        grid = self._stage_grid()
        known: HostFeeds = {**grid.feeds(), "image": self.picture.image}
        # A lattice model's prepare makes a kernel of the native scale alone.
        prepare: HostFeeds = {"cell": grid.cell, "scale": grid.scale}
        if self.native:
            prepare["subpixel"] = subpixel_centres(self.native)
            prepare["scale"] = np.array([self.native] * 2, np.float32)
        feeds: dict[str, HostFeeds] = {}
        for name in ("prepare", "encode"):
            stage = self.exact.stage(name)
            if stage is not None:
                source = prepare if name == "prepare" else known
                feeds[name] = {port.name: source[port.name] for port in stage.inputs}
                known |= _outputs(stage, feeds[name])
        for name in wanted:
            stage = self.exact.stage(name)
            if name.startswith("render") and stage is not None:
                feeds[name] = {port.name: known[port.name] for port in stage.inputs}
        return feeds

    def _stage_grid(self) -> Grid:
        grid = self.picture.grid
        height, width = grid.input_size
        if not self.native:
            return grid
        return Grid.from_scale(height, width, (self.native, self.native))

    def forms(self, feeds: dict[str, HostFeeds]) -> Compared | None:
        """Where the deploy form leaves the training form, both in PyTorch; None if nowhere."""
        name = "render" if "render" in feeds else f"render_x{self.native}"
        stage = self.exact.stage(name)
        if stage is None or name not in feeds:
            return None
        made = _outputs(stage, feeds[name])["upscaled"]
        with torch.inference_mode():
            want = self.network(torch.from_numpy(self.picture.image), self._stage_grid()).numpy()
        if share(made, want, TOLERANCES["fp32"]) <= 1:
            return None
        note = "the deploy form differs from the training form: the fault is not in the graphs"
        found = Divergence(_DEPLOY, "upscaled", "", "deploy form", "", statistics(made, want), note)
        return Compared(_DEPLOY, 1, 1, 1, 0.0, found)


def _outputs(stage: Stage, feeds: HostFeeds) -> HostFeeds:
    inputs = [torch.from_numpy(np.array(feeds[port.name], order="C")) for port in stage.inputs]
    with torch.inference_mode():
        result = stage.module.eval()(*inputs)
    results = [result] if isinstance(result, torch.Tensor) else list(result)
    return {p.name: v.numpy() for p, v in zip(stage.outputs, results, strict=True)}
