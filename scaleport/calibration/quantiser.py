"""From a network and a folder of images to int8 graphs within a quality budget."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from scaleport.aliases import HostFeeds
from scaleport.bundle.manifest import Graph, Manifest, Quantisation
from scaleport.calibration.flatten import flatten_linears
from scaleport.calibration.images import ImageSet, Sampling, draw_patches, find_images
from scaleport.calibration.layers import Layer, find_layers, float32_modules
from scaleport.calibration.placement import borders, place
from scaleport.calibration.ranges import METHODS, Method, Ranges, observe
from scaleport.calibration.report import describe, worst_loss
from scaleport.calibration.search import Effect, Outcome, Search
from scaleport.calibration.trial import Judge, Quantised, Workbench, stage_feeds
from scaleport.errors import ExportError, GateFailed, UsageError
from scaleport.export.plan import ExportPlan
from scaleport.runtimes.registry import int8_judges
from scaleport.validation.loss import MAX_LOSS, judged_scales


@dataclass(frozen=True)
class CalibrationOptions:
    """How to quantise.

    Attributes:
        max_loss: largest loss of luma PSNR in dB on held-out images, at every judged
            scale and on every backend that can run here. Infinity quantises every
            layer that can be int8, and measures nothing.
        ranges: ``minmax``, ``percentile``, ``entropy`` or ``mse``, see
            :func:`scaleport.calibration.ranges.observe`.
        least: smallest fraction of the layers that must be int8.
        sampling: how patches are drawn from the images.
        threads: processor threads; 0 leaves it to the backends.
    """

    max_loss: float = MAX_LOSS
    ranges: Method = "minmax"
    least: float = 0.5
    sampling: Sampling = field(default_factory=Sampling)
    threads: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.max_loss > 0:
            raise UsageError(f"the budget must be above 0 dB, got {self.max_loss:g}")
        if self.ranges not in METHODS:
            raise UsageError(f"unknown range method {self.ranges!r}; known: {', '.join(METHODS)}")
        if not 0 < self.least <= 1:
            raise UsageError(f"the least fraction must be above 0 and at most 1, got {self.least}")


class OverBudget(GateFailed):
    """No plan was within the budget; ``record`` holds the measurements."""

    def __init__(self, message: str, record: Quantisation) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True)
class Quantised8:
    """The int8 build of a model: a graph per stage, and how it came about."""

    graphs: dict[str, onnx.ModelProto]
    record: Quantisation


class Quantiser:
    """Quantises the stages of an export.

    Args:
        data: folder of images.
        options: see :class:`CalibrationOptions`.

    Raises:
        UsageError: if the folder is missing or holds too few images.
    """

    def __init__(self, data: Path, options: CalibrationOptions | None = None) -> None:
        self.options = options or CalibrationOptions()
        self.images: ImageSet = find_images(data, self.options.sampling.held_out)

    def __call__(self, plan: ExportPlan, manifest: Manifest) -> Quantised8:
        """Quantise the model of an export.

        Raises:
            OverBudget: if no plan with enough int8 layers is within the budget.
            UsageError: if the images are of one colour only.
            ImageError: if one is damaged.
            ExportError: if the network computes NaN, or has nothing to quantise.
        """
        with tempfile.TemporaryDirectory() as scratch:
            return _Work(self, plan, manifest, Path(scratch)).run()


class _Work:
    def __init__(
        self, quantiser: Quantiser, plan: ExportPlan, manifest: Manifest, scratch: Path
    ) -> None:
        self.options, self.images = quantiser.options, quantiser.images
        self.plan, self.manifest = plan, manifest
        self.entries: dict[str, Graph] = {}
        self.graphs: dict[str, onnx.ModelProto] = {}
        self.layers: dict[str, tuple[Layer, ...]] = {}
        self.ranges: dict[str, Ranges] = {}
        self.bench = Workbench(manifest, self.entries, self.build, scratch, self.options.threads)

    def run(self) -> Quantised8:
        self._lower()
        every = self._candidates()
        free = [layer for layer in every if not layer.fixed]
        if not free:
            raise ExportError(f"{self.manifest.name} has no layer that int8 could be used for")
        if math.isinf(self.options.max_loss):
            return self._everything(tuple(every))
        scorer = Judge(self.images, self.options.sampling, judged_scales(self.manifest))
        backends = tuple(judge.name for judge in int8_judges() if judge.availability().usable)
        budget, least = self.options.max_loss, self.options.least
        outcome = Search(self.bench, scorer, budget, least, backends, self.plan.step).run(free)
        record = describe(
            self.images,
            self.options.sampling,
            self._scales(),
            self.options.ranges,
            budget,
            tuple(layer for layer in every if layer.fixed),
            outcome,
        )
        if not outcome.within:
            count = len(outcome.effects)
            raise OverBudget(
                f"over budget: {worst_loss(record):.3f} dB lost with {count - outcome.kept} of "
                f"{count} layers in int8, allowed are {budget:g} dB; no int8 graphs were written. "
                "Allow more with --max-loss, or keep more layers in float with --least-int8",
                record,
            )
        chosen = outcome.quantised
        return Quantised8({name: self.build(name, chosen) for name in self.graphs}, record)

    def _candidates(self) -> list[Layer]:
        """All layers, with what their tensors hold observed."""
        for stage, layers in self.layers.items():
            free = [layer for layer in layers if not layer.fixed]
            self.ranges[stage] = self._observe(stage, free)
            self.layers[stage] = tuple(self._checked(stage, layer) for layer in layers)
        return [layer for found in self.layers.values() for layer in found]

    def _everything(self, layers: tuple[Layer, ...]) -> Quantised8:
        """All candidates in int8, whatever that costs."""
        effects = tuple(Effect(layer, math.nan) for layer in layers if not layer.fixed)
        outcome = Outcome(effects, 0, (), (), True)
        fixed = tuple(layer for layer in layers if layer.fixed)
        record = describe(
            self.images,
            self.options.sampling,
            self._scales(),
            self.options.ranges,
            None,
            fixed,
            outcome,
        )
        graphs = {name: self.build(name, outcome.quantised) for name in self.graphs}
        return Quantised8(graphs, record)

    def build(self, stage: str, quantised: Quantised) -> onnx.ModelProto:
        """The graph of a stage with some layers in int8."""
        chosen = [layer for layer in self.layers[stage] if layer.key in quantised]
        return place(self.graphs[stage], chosen, self.ranges[stage])

    def _lower(self) -> None:
        """Lower all stages to float32 graphs and find their layers."""
        half = {stage.name: stage for stage in self.plan.stages("fp16")}
        for stage in self.plan.stages("int8"):
            model = self.plan.onnx_stage("fp32", stage)
            self.entries[stage.name] = self.plan.stage_entry(
                stage, "int8", "in/memory", dynamic=True
            )
            if stage.name == "prepare":
                # Made once per scale: nothing to be gained, and every pixel depends on it.
                self.graphs[stage.name], self.layers[stage.name] = model, ()
                continue
            declared = float32_modules(half[stage.name])
            graph = flatten_linears(model)
            self.graphs[stage.name] = graph
            self.layers[stage.name] = find_layers(graph, stage.name, declared)
        for stage_name in self.graphs:
            self.ranges[stage_name] = {}

    def _scales(self) -> tuple[float, float]:
        low, high = self.manifest.scale.min, self.manifest.scale.max
        return low, max(low, min(high, self.options.sampling.largest_scale))

    def _observe(self, stage: str, layers: list[Layer]) -> Ranges:
        tensors = borders(self.graphs[stage], layers).tensors
        stages = self.bench.trial()

        def tell(done: float, total: float | None, _: str, /) -> None:
            self.plan.step(f"ranges of {stage}, patch {done:g} of {total:g}")

        def feeds() -> Iterator[HostFeeds]:
            drawn = draw_patches(self.images, self.options.sampling, self._scales(), tell)
            return (stage_feeds(stages, patch, stage) for patch in drawn)

        return observe(self.graphs[stage], tensors, feeds, self.options.ranges)

    def _checked(self, stage: str, layer: Layer) -> Layer:
        """The layer, fixed if what it reads was always zero: there is no range to quantise."""
        if layer.fixed:
            return layer
        for name in borders(self.graphs[stage], [layer]).tensors:
            if self.ranges[stage][name] == (0.0, 0.0):
                return Layer(
                    layer.stage,
                    layer.name,
                    layer.weight,
                    layer.outputs,
                    layer.parameters,
                    "a tensor around it was zero on every calibration image",
                )
        return layer
