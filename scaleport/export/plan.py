"""What one export works on: the network, its deploy forms, its ONNX graphs, the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import onnx
import torch

from scaleport.bundle.manifest import SMALL, Graph, Precision, SizeRange
from scaleport.errors import ExportError, UsageError
from scaleport.export.capture import capture
from scaleport.export.formats import FIXED_ONLY
from scaleport.export.mixed import float32_operations, keep_float32
from scaleport.export.onnx import export_stage
from scaleport.export.resampling import resample_graph
from scaleport.export.static import (
    USUAL_SCALE,
    StaticShape,
    joined_whole,
    lengths_of,
    natives_of,
    specialised,
    whole_parts,
    whole_stage,
    with_numbers,
)
from scaleport.export.whole import Front, whole_graph
from scaleport.models.base import DeployForm, Stage
from scaleport.models.network import Network
from scaleport.models.small_form import is_exact, small_form
from scaleport.progress import Progress, Steps
from scaleport.tensor import TensorSpec

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
INT8_PARTS = "all but the layers that the manifest lists as int8"
FRONTS: dict[str, Front] = {"whole": "scale", "whole_size": "size"}
_FRONT_PARTS = "the grid and the reduction from the lattice"
_NO_SMALL = (
    "pictures smaller than the fixed shape are continued by reflection, and their right and bottom "
    "border is approximate: this network reads more of a border than zeros around convolutions"
)


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        formats: names of :data:`scaleport.export.formats.FORMATS`.
        precisions: ``fp32``, ``fp16`` and, with calibration images, ``int8``.
        freeze_scales: scales that get a render graph with a constant kernel. For a lattice
            model, native scales, or all of them if None. For a query model whose filters depend
            on the sub-pixel alone (MetaSR), any integer scales, or none if None.
        height: range of LR heights that engines are built for.
        width: range of LR widths that engines are built for.
        overwrite: whether an existing bundle may be replaced.
    """

    formats: tuple[str, ...] = ("onnx", "openvino", "tensorrt", "coreml")
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    freeze_scales: tuple[int, ...] | None = None
    height: SizeRange = field(default_factory=lambda: SizeRange(min=1, opt=256, max=1024))
    width: SizeRange = field(default_factory=lambda: SizeRange(min=1, opt=256, max=1024))
    overwrite: bool = False
    keep_float32: tuple[str, ...] = ()
    """Modules that a float16 build computes in float32, by path."""
    license: str = ""
    """Licence of the weights, best as an SPDX identifier; empty for what the checkpoint says."""
    static: StaticShape | None = None
    """The only shape that graphs take; None for graphs of any shape. ``height`` and ``width`` are
    then those of the shape."""

    def __post_init__(self) -> None:
        """Check what can be checked without the network."""
        known = get_args(Precision)
        unknown = [p for p in self.precisions if p not in known]
        if unknown or not self.precisions:
            raise UsageError(
                f"precision must be {' or '.join(known)}, got {', '.join(unknown) or 'none'}"
            )
        for axis in (self.height, self.width):
            if not 1 <= axis.min <= axis.opt <= axis.max:
                raise UsageError(f"sizes must be min <= opt <= max, got {axis}")
        fixed = [name for name in self.formats if name in FIXED_ONLY]
        if self.static is None and fixed:
            raise UsageError(
                f"{fixed[0]} graphs have fixed shapes: add --static WIDTHxHEIGHT, for example "
                "--static 256x256"
            )
        if self.static is not None:
            for name, n in (("height", self.static.height), ("width", self.static.width)):
                object.__setattr__(self, name, SizeRange(min=n, opt=n, max=n))


class ExportPlan:
    """The intermediate results of one export, made when first asked for and then kept."""

    def __init__(
        self,
        network: Network,
        options: ExportOptions,
        place: Callable[[str], Path],
        progress: Progress | None = None,
    ) -> None:
        self.network = network
        self.options = options
        self.place = place
        """Maps a path in the bundle to where it is to be written."""
        self.step = Steps(progress)
        """Called with a line of text before each piece of work, in any thread."""
        self.skipped: dict[str, str] = {}
        """What a format was written without, with the reason."""
        self._forms: dict[str, DeployForm] = {}
        self._onnx: dict[tuple[str, str], onnx.ModelProto] = {}
        self._captured: dict[tuple[str, str], torch.export.ExportedProgram | None] = {}
        self.int8: dict[str, onnx.ModelProto] = {}
        """Quantised graphs by stage, put here before anything of precision int8 is written."""
        self.lengths: dict[str, int] = {}
        """The length of every dimension of graphs of fixed shape; empty where they are dynamic."""
        self._natives = network.upsampler.native_scales
        if options.static is not None:
            frozen = options.freeze_scales
            natives = natives_of(options.static, network)
            self._natives = tuple(n for n in natives if frozen is None or n in frozen)
            self.lengths = lengths_of(options.static, network)
        limits, binds = network.limits, network.upsampler.binds_scales
        unknown = {
            scale
            for scale in options.freeze_scales or ()
            if not (limits.min <= scale <= limits.max if binds else scale in self.natives)
        }
        if unknown:
            wanted = ", ".join(map(str, self.natives)) or "none"
            there = f"native scales of this model: {wanted}"
            if binds:
                there = f"this model renders x{limits.min:g} to x{limits.max:g}"
            raise UsageError(f"cannot freeze scale {', '.join(map(str, sorted(unknown)))}; {there}")

    @property
    def natives(self) -> tuple[int, ...]:
        """Native scales of a lattice model that are written, empty for a query one."""
        return self._natives

    def stages(self, precision: str) -> list[Stage]:
        """The stages to export, without the frozen scales that nobody asked for."""
        frozen = self.options.freeze_scales
        # Quantised graphs are made from the float32 ones.
        form = self._form("fp32" if precision == "int8" else precision)
        skipped: Iterable[int] = ()
        if frozen is not None and form.render is not None:
            skipped = set(form.bound) - set(frozen)
        dropped = {form.bound[scale].name for scale in skipped}
        if self.lengths and self.natives:
            # Kernels of every scale take a dynamic dimension; each native scale has its own graph.
            dropped |= {f"render_x{scale}" for scale in form.bound if scale not in self.natives}
            dropped |= {"prepare", "render"}
        return [stage for stage in form.stages() if stage.name not in dropped]

    def _form(self, precision: str) -> DeployForm:
        """The deploy form in a precision, with the frozen scales bound."""
        if precision not in self._forms:
            form = self.network.deploy(DTYPES[precision])
            if form.bind is not None:
                frozen = sorted(set(self.options.freeze_scales or ()))
                form = replace(form, bound={scale: form.bind(scale) for scale in frozen})
            if precision == "fp16" and self.options.keep_float32:
                form = self._mixed(form)
            self._forms[precision] = form
        return self._forms[precision]

    def written_stages(self, precision: str) -> list[Stage]:
        """The stages that a bundle holds: with fixed shapes, also those for smaller pictures."""
        stages = self.stages(precision)
        if not self.lengths or not self._has_small:
            return stages
        return [*stages, *(small_form(stage) for stage in stages if _is_spatial(stage))]

    @cached_property
    def _has_small(self) -> bool:
        form = self.network.deploy(torch.float64)
        alone = len(form.encode.inputs) == 1 and not self.network.encoder.padding
        decoder = None if self.natives else form.render
        if alone and is_exact(form.encode, tuple(form.bound.values()), decoder):
            return True
        self.skipped["small"] = _NO_SMALL
        return False

    def final_stage(self, precision: str, stage: Stage) -> onnx.ModelProto:
        """The ONNX graph of a stage as it is written."""
        if stage.name.endswith(SMALL) and precision == "int8":
            precision = "fp32"  # rare pictures are not worth a plan of their own
        model = self.onnx_stage(precision, stage)
        if not self.lengths:
            return model
        return specialised(model, self.stage_entry(stage, "fp32", "in/memory"))

    def whole_stages(self, precision: str) -> list[tuple[float, Stage]]:
        """With fixed shapes, the stages from an image to its pixels, one for each scale."""
        if not self.lengths or self.options.static is None:
            return []
        named = {stage.name: stage for stage in self.stages(precision)}
        chosen = self.options.static.scale
        limits = self.network.limits
        usual = min(max(USUAL_SCALE, limits.min), limits.max) if chosen is None else chosen
        found = []
        for scale in self.natives or (usual,):
            parts = whole_parts(named, self.lengths, scale, bool(self.natives))
            if parts is not None:
                found.append((float(scale), whole_stage(*parts, scale)))
        return found

    def final_whole(self, precision: str, scale: float, stage: Stage) -> onnx.ModelProto:
        """The ONNX graph of one of :meth:`whole_stages`, joined from the graphs of its parts."""
        named = {s.name: s for s in self.stages(precision)}
        parts = whole_parts(named, self.lengths, scale, bool(self.natives))
        if parts is None:
            raise ExportError(f"there is no graph {stage.name!r} of this network")
        encode, render, grid = parts
        self.step(f"onnx {precision} {stage.name}")
        graphs = (self.onnx_stage(precision, encode), self.onnx_stage(precision, render))
        joined = joined_whole(stage, *graphs, grid)
        return specialised(joined, self.stage_entry(stage, "fp32", "in/memory"))

    def _mixed(self, half: DeployForm) -> DeployForm:
        full = self.network.deploy(torch.float32)
        if half.bind is not None and full.bind is not None:
            full = replace(full, bound={s: full.bind(s) for s in half.bound})
        mixed = keep_float32(half.stages(), full.stages(), self.options.keep_float32)
        named = {stage.name: stage for stage in mixed}
        return replace(
            half,
            encode=named["encode"],
            render=named.get("render"),
            prepare=named.get("prepare"),
            bound={scale: named[stage.name] for scale, stage in half.bound.items()},
        )

    def onnx_stage(self, precision: str, stage: Stage) -> onnx.ModelProto:
        """The ONNX graph of a stage."""
        if precision == "int8":
            return self.int8[stage.name]
        key = (precision, stage.name)
        if key not in self._onnx:
            self.step(f"onnx {precision} {stage.name}")
            self._onnx[key] = export_stage(stage, self.captured(precision, stage))
        return self._onnx[key]

    def captured(self, precision: str, stage: Stage) -> torch.export.ExportedProgram | None:
        """A stage as PyTorch operators, for every format to lower; None if it cannot be captured.

        An exporter that gets None tries by its own means and says what is wrong.
        """
        key = (precision, stage.name)
        if key not in self._captured:
            try:
                self._captured[key] = capture(stage)
            except ExportError:
                self._captured[key] = None
        return self._captured[key]

    @cached_property
    def _resample(self) -> onnx.ModelProto | None:
        if not self.natives:
            return None
        return resample_graph(max(self.natives) / self.network.limits.min)

    @property
    def fronts(self) -> tuple[str, ...]:
        """Names of the whole graphs for pictures of any size; none of a fixed shape."""
        return () if self.lengths else tuple(FRONTS)

    def onnx_whole(self, precision: str, name: str) -> onnx.ModelProto:
        """The whole graph ``whole`` (image, scale) or ``whole_size`` (image, size)."""
        key = (precision, name)
        if key not in self._onnx:
            stages = {s.name: self.onnx_stage(precision, s) for s in self.stages(precision)}
            self.step(f"onnx {precision} {name}")
            self._onnx[key] = whole_graph(FRONTS[name], stages, self.natives, self._resample)
        return self._onnx[key]

    def stage_entry(
        self, stage: Stage, precision: Precision, path: str, dynamic: bool = False
    ) -> Graph:
        """Manifest entry of a stage's graph; ``dynamic``: before its shape is fixed."""
        entry = Graph(
            path=path,
            stage=stage.name,
            precision=precision,
            inputs=stage.inputs,
            outputs=stage.outputs,
            float32_nodes=_float32_parts(precision, [stage.float32_parts]),
            float32_operations=self._operations(precision, stage.name),
        )
        return entry if dynamic or not self.lengths else with_numbers(entry, self.lengths)

    def _operations(self, precision: str, name: str) -> tuple[str, ...]:
        """What computes in float32 in a float16 graph, as far as it was lowered to ONNX."""
        model = self._onnx.get((precision, name))
        return float32_operations(model) if precision == "fp16" and model is not None else ()

    def whole_entry(self, name: str, precision: Precision, path: str) -> Graph:
        """Manifest entry of a whole graph."""
        image = TensorSpec("image", "float32", ("N", 3, "H", "W"))
        second = TensorSpec("scale", "float32", (2,))
        if FRONTS[name] == "size":
            second = TensorSpec("size", "int64", (2,))
        parts = [_FRONT_PARTS, *(s.float32_parts for s in self.stages(precision))]
        return Graph(
            path=path,
            stage=name,
            precision=precision,
            inputs=(image, second),
            outputs=(TensorSpec("upscaled", "float32", ("N", 3, "Ho", "Wo")),),
            float32_nodes=_float32_parts(precision, parts),
            float32_operations=self._operations(precision, name),
        )


def _is_spatial(stage: Stage) -> bool:
    """Whether a stage reads pixels beside each other, and so the border of a picture."""
    return stage.name == "encode" or stage.name.startswith("render_x")


def _float32_parts(precision: Precision, parts: list[str]) -> str:
    if precision == "fp32":
        return ""
    return INT8_PARTS if precision == "int8" else "; ".join(part for part in parts if part)
