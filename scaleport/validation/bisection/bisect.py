"""The first diverging layer: graphs and PyTorch side by side, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from scaleport.aliases import HostFeeds
from scaleport.bundle.manifest import Graph
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import ArtifactError, UsageError
from scaleport.export.by_format import REUSED_NAMES
from scaleport.export.plan import FRONTS
from scaleport.progress import Progress, Steps
from scaleport.runtimes import registry
from scaleport.runtimes.base import SessionOptions, host, source_format
from scaleport.runtimes.scales import checked_grid
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.upscaler import BundleSource
from scaleport.validation.bisection.divergence import (
    TOLERANCES,
    Compared,
    Divergence,
    first_divergence,
    matched_by_module,
    names_agree,
    share,
    statistics,
    without_collisions,
)
from scaleport.validation.bisection.options import SCALE, Bisection, BisectOptions
from scaleport.validation.bisection.searched import searched
from scaleport.validation.bisection.steps import own_choice, remark
from scaleport.validation.bisection.torch_side import FOREIGN, Picture, TorchSide
from scaleport.validation.bisection.traced import Tensor
from scaleport.validation.bisection.whole_reference import whole_feeds
from scaleport.validation.metrics import psnr
from scaleport.validation.parity.gates import Gates
from scaleport.validation.pictures import picture


def bisect(
    bundle: Path | str,
    options: BisectOptions | None = None,
    progress: Progress | None = None,
) -> Bisection:
    """Find the first tensor where a bundle's graphs differ from the PyTorch network.

    Each stage gets the reference's values, so that the error of one stage does not reach the next.
    Stages come first, the whole graph last; the search ends at the first divergence.

    Args:
        bundle: the bundle directory.
        options: what is compared.
        progress: told of each step, see :mod:`scaleport.progress`.

    Raises:
        UsageError: if a name is unknown, or the bundle has no such graphs.
        BackendError: if the backend cannot run here.
        ArtifactError: if the bundle or checkpoint is damaged.
        ExportError: if a stage cannot be traced here, or TensorRT refuses a graph.
    """
    options = options or BisectOptions()
    opened = open_bundle(Path(bundle))
    if opened.manifest.fixed_size is not None:
        raise UsageError(
            "the layers of graphs of fixed shape are folded together; search a bundle that was "
            "exported without --static: its graphs are what these were made from"
        )
    backend = searched(opened, options.backend, options.precision)
    work = _Work(opened, backend, options, Steps(progress))
    unknown = set(options.stages) - set(work.stages)
    if unknown:
        raise UsageError(
            f"there is no stage {sorted(unknown)[0]!r} in these graphs; known: "
            f"{', '.join(work.stages)}"
        )
    found: list[Compared] = []
    for compared in work.run(options.stages or tuple(work.stages)):
        found.append(compared)
        if compared.divergence is not None:
            break
    matched = sum(c.matched for c in found)
    if not matched:
        raise ArtifactError(
            "no tensor of these graphs has the name of one in the network; they were not exported "
            "from this checkpoint, or with another version of PyTorch"
        )
    return Bisection(
        backend,
        options.precision,
        work.device,
        options.shape,
        work.scale,
        work.tolerance,
        tuple(found),
        found[-1].divergence,
        tuple(work.notes),
    )


class _Work:
    """One search: the network in both forms, the graphs, the feeds of every stage."""

    def __init__(self, bundle: Bundle, backend: str, options: BisectOptions, step: Steps) -> None:
        precision, tolerance = options.precision, options.tolerance
        shape, scale = options.shape, options.scale
        self.bundle, self.backend, self.precision, self.step = bundle, backend, precision, step
        self.tolerance = TOLERANCES[precision] if tolerance is None else tolerance
        self.notes: list[str] = []
        self.runner = registry.get_backend(backend)
        self.format = source_format(self.runner)
        self.graphs = {g.stage: g for g in bundle.graphs(self.format, None, precision)}
        if not self.graphs:
            skipped = bundle.manifest.skipped.get(self.format, "")
            raise UsageError(
                f"{bundle.path} has no {precision} graphs of {self.format}"
                + (f", skipped at export: {skipped}" if skipped else "")
            )
        runner, available = registry.require(backend)
        self.device = available.device
        source = BundleSource(bundle)
        self.sessions = Stages(source, runner, available, precision, SessionOptions())
        limits = bundle.manifest.scale
        if scale is None:
            scale = min(max(SCALE, limits.min), limits.max)
        self.grid = checked_grid(bundle.manifest, *shape, scale, None)
        pair = scale if isinstance(scale, tuple) else (float(scale), float(scale))
        self.scale: tuple[float, float] = (float(pair[0]), float(pair[1]))
        self.image = picture(*shape)
        step("loading the network")
        self.whole = runner.whole_stage
        self.torch = TorchSide(
            bundle,
            self.graphs,
            precision,
            self.format,
            Picture(self.image, self.grid, self.scale),
            options.checkpoint or bundle.checkpoint(),
        )
        self.stages = [stage for stage in self._order() if stage in self.graphs]
        made = bundle.manifest.tool_versions.get(torch.__name__, "").split("+")[0]
        here = str(torch.__version__).split("+")[0]
        if made and made != here:
            self.notes.append(
                f"exported with PyTorch {made}, compared with {here}: tensors may have other names"
            )

    def _order(self) -> list[str]:
        bound = sorted(s for s in self.graphs if s.startswith("render_x"))
        return ["prepare", "encode", "render", *bound, self.whole]

    def run(self, wanted: tuple[str, ...]) -> Iterator[Compared]:
        """Compare the wanted stages, in order."""
        self.step("deploy form against training form")
        feeds = self.torch.feeds(self.stages)
        form = self.torch.forms(feeds)
        if form is not None:
            yield form
            if form.divergence is not None:
                return
        for name in self.stages:
            if name not in wanted:
                continue
            self.step(f"{self.backend} {self.precision} {name}")
            if name == self.whole:
                inputs = whole_feeds(FRONTS[name], self.image, self.scale)
            else:
                if name not in feeds:
                    raise ArtifactError(FOREIGN.format(name))
                inputs = feeds[name]
            yield self._compare(name, inputs)

    def _reference(self, name: str, feeds: HostFeeds, chosen: HostFeeds) -> dict[str, Tensor]:
        if name == self.whole:
            return self.torch.whole(FRONTS[name], chosen)
        return self.torch.stage(name, feeds, chosen)

    def _compare(self, name: str, feeds: HostFeeds) -> Compared:
        graph = self.graphs[name]
        path = self.bundle.file(graph.path)
        chosen: HostFeeds = {}
        reference: Mapping[str, Tensor] = self._reference(name, feeds, chosen)
        values = self.runner.inner(path, feeds)
        if self.format in REUSED_NAMES:
            values = without_collisions(values, reference)
        elif not names_agree(values, reference):
            self.notes.append(
                f"{name} was exported by another version and names its tensors otherwise: its "
                "convolutions are compared by module, and its outputs; export again for more"
            )
            outputs = [tensor.name for tensor in graph.outputs]
            reference = matched_by_module(values, reference, outputs)
        compared = first_divergence(name, values, reference, self.tolerance)
        while (made := own_choice(compared, values, reference)) is not None:
            assert compared.divergence is not None
            tensor = compared.divergence.tensor
            self.notes.append(f"{name}: {remark(tensor, made, reference[tensor].value)}")
            chosen[tensor] = made
            reference = self._reference(name, feeds, chosen)
            compared = first_divergence(name, values, reference, self.tolerance)
        if compared.divergence is not None:
            return compared
        return replace(compared, divergence=self._as_shipped(graph, feeds, reference))

    def _as_shipped(
        self, graph: Graph, feeds: HostFeeds, reference: Mapping[str, Tensor]
    ) -> Divergence | None:
        """Whether the outputs differ when the backend may optimise the graph as it likes."""
        try:
            results = self.sessions.session(graph.stage).run(feeds)
        except UsageError as error:
            # A bundle without engines, or with some for other sizes.
            self.notes.append(f"{graph.stage} as it is in the bundle was not run: {error}")
            return None
        for name, value in results.items():
            found = host(value)
            twin = reference.get(name)
            if twin is None:
                continue
            reason = ""
            if share(found, twin.value, self.tolerance) > 1:
                reason = "differs"
            elif name == "upscaled":
                limit = Gates().of(self.precision).psnr
                ratio = psnr(found, twin.value)
                reason = f"PSNR {ratio:.1f} dB is under {limit:g} dB" if ratio < limit else ""
            if reason:
                return Divergence(
                    graph.stage,
                    name,
                    "",
                    "output",
                    twin.operation,
                    statistics(found, twin.value),
                    f"{reason}, although no tensor inside does when each is an output: an "
                    "optimisation of the backend, or many small errors",
                )
        return None
