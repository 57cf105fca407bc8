"""From a checkpoint to a bundle, or to a copy of the same bundle that was made before.

Finished bundles are kept in a cache, see :mod:`scaleport.export_cache`. Their key is a hash of
everything that their bytes depend on: the checkpoint, the options, the versions of all tools, the
sources of this package and the GPU that engines are built for.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import msgspec
import onnx

from scaleport import __version__
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import (
    CHECKPOINT_NAME,
    FORMAT_VERSION,
    Graph,
    Manifest,
    Quantisation,
    ScaleRange,
)
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.bundle.writer import BundleWriter
from scaleport.errors import ArtifactError, BackendError, UnsupportedOpError, UsageError
from scaleport.export.formats import ALWAYS, FORMATS, check_formats, writer_of
from scaleport.export.plan import ExportOptions, ExportPlan
from scaleport.export.receptive import receptive_field, render_radius
from scaleport.export.static import check_shape
from scaleport.export_cache import discard, fetch, keep
from scaleport.extras import installed_versions
from scaleport.grid import SIZE_RULE
from scaleport.models.checkpoint import load_checkpoint, read_metadata
from scaleport.models.registry import ENCODERS, UPSAMPLERS
from scaleport.progress import Progress
from scaleport.runtimes.cuda import find_device
from scaleport.runtimes.tiling import halo_for
from scaleport.shipped import checkpoint_name, find_checkpoint, license_of

APPROXIMATE_HALO = 32
"""LR pixels by which tiles overlap where no overlap makes them exact."""

TOOLS = (
    *("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "openvino", "coremltools"),
    "executorch",
)
RTX_TOOLS = ("tensorrt", "tensorrt-rtx")
"""Libraries that may be installed and still not build on this machine at this time."""
_IN_PYTHON = ("coreml", "executorch")
"""Formats whose writers hold Python's lock nearly all the time."""


def tool_versions() -> dict[str, str]:
    """Versions of everything that has a hand in an export."""
    own = {"scaleport": __version__, "python": platform.python_version()}
    return own | installed_versions((*TOOLS, *RTX_TOOLS))


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


def export(
    checkpoint: Path | str,
    target: Path | str | None = None,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    cache: bool = True,
) -> Bundle:
    """Export a checkpoint to a bundle: graphs for every runtime, with a manifest.

    ::

        bundle = scaleport.export("scaleport-s", options=scaleport.ExportOptions(formats=("onnx",)))
        upscaler = scaleport.load(bundle)

    Args:
        checkpoint: a checkpoint file, or the name of one that comes with the package.
        target: the bundle directory to write; ``NAME.bundle`` in the current folder if left out.
        options: what to export.
        progress: told of each step, see :mod:`scaleport.progress`.
        cache: whether the same export, made before with the same tools, is copied from the user's
            cache, and this one kept there.

    Returns:
        The bundle, open.

    Raises:
        UsageError: if there is no such checkpoint, or an option does not fit the model.
        ArtifactError: if the checkpoint is damaged.
        UnsupportedOpError: if no graph can hold the network; nothing is written then.
        ExportError: if a network cannot be exported.
        OutputError: if the bundle is there already and may not be replaced, or cannot be written.
    """
    source = find_checkpoint(str(checkpoint))
    place = Path(f"{checkpoint_name(source)}.bundle") if target is None else Path(target)
    options = options or ExportOptions()
    check_formats(options.formats)
    if not cache or "int8" in options.precisions:
        return Bundle(place, export_bundle(source, place, options, progress))
    key = cache_key(source, read_metadata(source)["config"], options, tool_versions())
    manifest = from_cache(key, place, options.overwrite)
    if manifest is None:
        manifest = export_bundle(source, place, options, progress)
        to_cache(key, place, manifest)
    return Bundle(place, manifest)


def export_bundle(
    checkpoint: Path,
    target: Path,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    quantise: Callable[[ExportPlan, Manifest], Int8Build] | None = None,
) -> Manifest:
    """Export a checkpoint file to a bundle, with int8 graphs where a quantiser makes them.

    A format whose tools are missing on this machine is skipped and the manifest says why; a graph
    that a tool refuses ends the export. The bundle appears under its name only when complete.
    Errors are those of :func:`export`.

    Args:
        checkpoint: a Scaleport checkpoint (safetensors).
        target: the bundle directory to write.
        options: what to export.
        progress: told of each step, see :mod:`scaleport.progress`.
        quantise: makes the int8 graphs, see :class:`scaleport.calibration.quantiser.Quantiser`;
            needed for precision int8 and not used otherwise.

    Returns:
        The manifest as written.
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
        plan = ExportPlan(network, options, writer.path, progress)
        manifest = _described(checkpoint, plan)
        if quantise is not None and "int8" in options.precisions:
            build = quantise(plan, manifest)
            plan.int8.update(build.graphs)
            manifest = msgspec.structs.replace(manifest, quantisation=build.record)
        wanted = [name for name in FORMATS if name == "onnx" or name in options.formats]
        refused = network.encoder.refused_formats
        graphs, skipped = _write_formats(plan, [name for name in wanted if name not in refused])
        skipped |= {name: refused[name] for name in wanted if name in refused}
        skipped |= plan.skipped
        shutil.copyfile(checkpoint, writer.path(CHECKPOINT_NAME))
        plan.step("hashing")
        return writer.finish(msgspec.structs.replace(manifest, graphs=graphs, skipped=skipped))


def _described(checkpoint: Path, plan: ExportPlan) -> Manifest:
    """The manifest of an export before any graph is written."""
    network, options = plan.network, plan.options
    radius, around = _fields(plan)
    info = read_metadata(checkpoint)["info"]
    return Manifest(
        format_version=FORMAT_VERSION,
        name=checkpoint_name(checkpoint),
        family=network.upsampler.family,
        model=network.config,
        parameters=network.parameter_count(),
        scale=_scales(plan, radius),
        size_rule=SIZE_RULE,
        height=options.height,
        width=options.width,
        receptive_field=radius,
        render_radius=around,
        tile_step=network.encoder.tile_step,
        tiling=network.tiling.kind,
        graphs={},
        files={},
        tool_versions=tool_versions(),
        license=options.license or license_of(checkpoint, info),
    )


def _fields(plan: ExportPlan) -> tuple[int, int | None]:
    """The overlap of tiles and, where it is known, how far a pixel's features lie around it."""
    network = plan.network
    exact = network.tiling.kind == "exact"
    if not exact and not network.tiling.measurable:
        return APPROXIMATE_HALO, None
    plan.step("measuring the receptive field")
    measured = receptive_field(network)
    if measured is None:
        measured = APPROXIMATE_HALO
    if exact:
        return measured, render_radius(network)
    return max(measured, APPROXIMATE_HALO), None


def _scales(plan: ExportPlan, radius: int) -> ScaleRange:
    """The scales that the graphs answer; refuses a fixed shape that is too small."""
    limits, shape = plan.network.limits, plan.options.static
    found = ScaleRange(min=limits.min, max=limits.max, native=plan.natives)
    if shape is None:
        return found
    if plan.natives:
        most = min(limits.max, max(plan.natives))
        found = ScaleRange(min=min(limits.min, most), max=most, native=plan.natives)
    halo = halo_for(radius, bool(plan.natives), found.min)
    kind = plan.network.tiling.kind
    check_shape(shape, halo, plan.network.encoder.tile_step, kind != "not-allowed")
    return found


def _write_formats(
    plan: ExportPlan, names: Sequence[str]
) -> tuple[dict[str, tuple[Graph, ...]], dict[str, str]]:
    """Write formats, and say which have been left out and why.

    ONNX always ships and comes first: it is what other formats can be made from, now and again.
    Core ML is made by Python from PyTorch's programs; the tools of the others are native code,
    which works beside it on another core.
    """

    def attempt(name: str) -> tuple[tuple[Graph, ...], str]:
        try:
            return tuple(writer_of(name)(plan)), ""
        except BackendError as error:
            reason = str(error)
        except UnsupportedOpError as error:
            # A network of somebody else, in a format whose graphs cannot all be proven.
            if name == ALWAYS:
                raise
            reason = f"not proven to be equal: {error}"
        shutil.rmtree(plan.place(name), ignore_errors=True)  # graphs that were written before
        return (), reason

    first, *others = names
    results = {first: attempt(first)}
    alone = (os.cpu_count() or 1) < 2
    here = [name for name in others if alone or name in _IN_PYTHON]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="export") as beside:
        pending = {name: beside.submit(attempt, name) for name in others if name not in here}
        try:
            results |= {name: attempt(name) for name in here}
        except BaseException:
            beside.shutdown(cancel_futures=True)
            raise
        results |= {name: future.result() for name, future in pending.items()}
    graphs = {name: results[name][0] for name in names if not results[name][1]}
    return graphs, {name: results[name][1] for name in names if results[name][1]}


def cache_key(
    checkpoint: Path, config: dict[str, Any], options: ExportOptions, tools: dict[str, str]
) -> str:
    """What a bundle is kept under; empty for one that must not be kept.

    Networks with parts of other packages are not kept: what those compute is not known here.

    Args:
        checkpoint: the file.
        config: its configuration.
        options: what to export; whether a target may be overwritten does not count.
        tools: versions of everything that has a hand in an export.
    """
    for registry, role in ((ENCODERS, "encoder"), (UPSAMPLERS, "upsampler")):
        name = _part(config, role)
        if name not in registry or registry.origin(name):
            return ""
    given = {**asdict(options), "overwrite": None, "formats": sorted(set(options.formats))}
    said = {
        "checkpoint": sha256_file(checkpoint).sha256,
        "name": checkpoint_name(checkpoint),
        "license": license_of(checkpoint, None),
        "options": given,
        "tools": {**tools, **installed_versions(("spandrel", "cuda-python", "numpy"))},
        "sources": _sources(),
        "gpu": _gpu() if "tensorrt" in options.formats else "",
    }
    data = msgspec.json.encode(said, order="deterministic", enc_hook=msgspec.to_builtins)
    return hashlib.sha256(data).hexdigest()


def from_cache(key: str, target: Path, overwrite: bool) -> Manifest | None:
    """Write the bundle of a key to a target, or say that there is none by None.

    Every file is compared with its hash; a damaged entry is removed.

    Raises:
        OutputError: if the target cannot be written or replaced.
    """
    entry = fetch(key) if key else None
    if entry is None:
        return None
    try:
        bundle = open_bundle(entry.absolute(), verify="all")
    except (ArtifactError, UsageError):  # damaged, or removed by another process meanwhile
        discard(key)
        return None
    with BundleWriter(target, overwrite) as writer:
        try:
            for relpath in bundle.manifest.files:
                shutil.copyfile(bundle.path / relpath, writer.path(relpath))
        except FileNotFoundError:
            return None
        return writer.finish(bundle.manifest)


def to_cache(key: str, target: Path, manifest: Manifest) -> None:
    """Keep a finished bundle, unless engines were left out for a reason that may pass."""
    may_pass = "tensorrt" in manifest.skipped and installed_versions(RTX_TOOLS)
    if key and not may_pass:
        keep(key, target, manifest.name)


def _part(config: dict[str, Any], role: str) -> str:
    """Name of a network's encoder or upsampler; empty where a configuration is damaged."""
    part = config.get(role)
    name = part.get("name") if isinstance(part, dict) else None
    return name if isinstance(name, str) else ""


@cache
def _sources() -> str:
    """Hash of the package's own code: a checkout changes while its version stays."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _gpu() -> str:
    try:
        return str(find_device())
    except BackendError:
        return ""
