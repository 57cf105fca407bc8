"""From a checkpoint to a bundle."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import msgspec
import onnx

from scaleport import __version__
from scaleport.bundle.manifest import (
    CHECKPOINT_NAME,
    FORMAT_VERSION,
    Graph,
    Manifest,
    Quantisation,
    ScaleRange,
)
from scaleport.bundle.writer import BundleWriter
from scaleport.errors import BackendError, UnsupportedOpError, UsageError
from scaleport.export.formats import FORMATS, check_formats, writer_of
from scaleport.export.plan import ExportOptions, ExportPlan
from scaleport.export.receptive import receptive_field
from scaleport.grid import SIZE_RULE
from scaleport.models.checkpoint import load_checkpoint, read_metadata
from scaleport.shipped import checkpoint_name

APPROXIMATE_HALO = 32
"""LR pixels by which tiles overlap where no overlap makes them exact."""

TOOLS = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino", "coremltools")
RTX_TOOLS = ("tensorrt", "tensorrt-rtx")


def tool_versions() -> dict[str, str]:
    """Versions of everything that has a hand in an export."""
    found = {"scaleport": __version__, "python": platform.python_version()}
    for tool in (*TOOLS, *RTX_TOOLS):
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found


class Int8Build(Protocol):
    """What a quantiser returns: a graph per stage, and the record that the manifest keeps."""

    @property
    def graphs(self) -> dict[str, onnx.ModelProto]:
        """Graphs by stage."""
        ...

    @property
    def record(self) -> Quantisation:
        """How they came about."""
        ...


def export_bundle(
    checkpoint: Path,
    target: Path,
    options: ExportOptions | None = None,
    step: Callable[[str], None] = lambda _: None,
    quantise: Callable[[ExportPlan, Manifest], Int8Build] | None = None,
) -> Manifest:
    """Export a checkpoint to a bundle.

    A format whose tools are missing on this machine is skipped and the manifest says why; a graph
    that a tool refuses ends the export. The bundle appears under its name only when complete.

    Args:
        checkpoint: a Scaleport checkpoint (safetensors).
        target: the bundle directory to be.
        options: what to export.
        step: called with a line of text before each piece of work.
        quantise: makes the int8 graphs, see :class:`scaleport.calibration.quantiser.Quantiser`;
            needed for precision int8 and not used otherwise.

    Returns:
        The manifest as written.

    Raises:
        ArtifactError: if the checkpoint is damaged.
        UsageError: if an option does not fit the model.
        UnsupportedOpError: if no graph can hold the network; nothing is written then.
        ExportError: if a network cannot be exported.
        OutputError: if the bundle cannot be written.
    """
    options = options or ExportOptions()
    check_formats(options.formats)
    if "int8" in options.precisions and quantise is None:
        raise UsageError("int8 needs images to calibrate on: use scaleport calibrate")
    network = load_checkpoint(checkpoint)
    if network.export_refusal:
        raise UnsupportedOpError(
            f"encoder {network.config['encoder']['name']!r} cannot be exported: "
            f"{network.export_refusal}"
        )
    with BundleWriter(target, options.overwrite) as writer:
        radius = APPROXIMATE_HALO
        if network.tiling.kind == "exact" or network.tiling.measurable:
            step("measuring the receptive field")
            measured = receptive_field(network)
            radius = APPROXIMATE_HALO if measured is None else measured
            if network.tiling.kind != "exact":
                radius = max(radius, APPROXIMATE_HALO)
        plan = ExportPlan(network, options, writer.path, step)
        info = read_metadata(checkpoint)["info"]
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=checkpoint_name(checkpoint),
            family=network.upsampler.family,
            model=network.config,
            parameters=network.parameter_count(),
            scale=ScaleRange(min=network.limits.min, max=network.limits.max, native=plan.natives),
            size_rule=SIZE_RULE,
            height=options.height,
            width=options.width,
            receptive_field=radius,
            tiling=network.tiling.kind,
            graphs={},
            files={},
            tool_versions=tool_versions(),
            license=str(info.get("license", "")) if isinstance(info, dict) else "",
        )
        if quantise is not None and "int8" in options.precisions:
            build = quantise(plan, manifest)
            plan.int8.update(build.graphs)
            manifest = msgspec.structs.replace(manifest, quantisation=build.record)
        graphs: dict[str, tuple[Graph, ...]] = {}
        skipped: dict[str, str] = {}
        # ONNX always ships: it is what every other format can be made from again.
        for name in FORMATS:
            if name != "onnx" and name not in options.formats:
                continue
            if name in network.encoder.refused_formats:
                skipped[name] = network.encoder.refused_formats[name]
                continue
            try:
                graphs[name] = tuple(writer_of(name)(plan))
            except BackendError as error:
                skipped[name] = str(error)
        skipped |= plan.skipped
        shutil.copyfile(checkpoint, writer.path(CHECKPOINT_NAME))
        step("hashing")
        return writer.finish(msgspec.structs.replace(manifest, graphs=graphs, skipped=skipped))
