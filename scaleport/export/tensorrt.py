"""ONNX graphs to TensorRT engines: with a GPU by TensorRT, ahead of time by TensorRT-RTX.

Precision lives in the graph: networks are strongly typed, so an fp16 engine comes from the fp16
ONNX graph and an int8 one from the graph with quantise and dequantise nodes.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from scaleport.atomic import Pending, written
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import (
    ScaleRange,
    SizeRange,
    continued,
    continued_most,
    split_dimension,
)
from scaleport.errors import (
    ArtifactError,
    BackendError,
    ExportError,
    OutputError,
    UsageError,
)
from scaleport.export.tensorrt_network import NetworkBuild, capability_member
from scaleport.grid import output_length
from scaleport.runtimes.cuda import Device, find_device
from scaleport.runtimes.engine_library import Library, installed, load_library, logged
from scaleport.runtimes.engine_record import (
    PORTABLE,
    EngineInfo,
    ShapeRange,
    mismatch,
    record_path,
)
from scaleport.runtimes.engine_session import open_engine
from scaleport.tensor import TensorSpec

__all__ = [
    "EngineInfo",
    "ShapeRange",
    "TensorRTOptions",
    "build_engine",
    "graph_sha256",
    "profile_for",
]

SIZE_INPUT: Final = "size"
"""The shape input of the whole graph: int64[2], the output size (Ho, Wo)."""

BATCH: Final = SizeRange(min=1, opt=1, max=2)
"""Images in one call: alpha is rendered as a second image."""
_USUAL_SCALE: Final = 2.0


@dataclass(frozen=True)
class TensorRTOptions:
    """How to build an engine.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``; empty takes ``tensorrt`` where it is installed
            and a GPU is usable, else ``tensorrt_rtx``.
        compute_capabilities: GPUs to build for, such as ``8.9``. Empty builds for the GPU at hand
            with TensorRT, and for Ampere or later with TensorRT-RTX. TensorRT builds for no other
            GPU than the one at hand.
        workspace: limit of the scratch memory in MiB; 0 leaves it to the library.
        optimization_level: 0 .. 5, how long the builder searches; None leaves it to the library.
    """

    library: str = ""
    compute_capabilities: tuple[str, ...] = ()
    workspace: int = 0
    optimization_level: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.workspace < 0:
            raise UsageError(f"workspace must be at least 0 MiB, got {self.workspace}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"optimization level must be 0 to 5, got {self.optimization_level}")


def profile_for(
    inputs: Sequence[TensorSpec],
    height: SizeRange,
    width: SizeRange,
    scale: ScaleRange,
    batch: SizeRange = BATCH,
) -> dict[str, ShapeRange]:
    """Ranges of all dynamic inputs of a graph, from the ranges that the manifest declares.

    ``Ho`` and ``Wo`` start at 1, since any region of the output may be asked for; the values of
    ``size`` are the output sizes of whole images at the declared scales. Usual is what a scale of
    2 makes of the usual image.

    Args:
        inputs: the graph's inputs; dimensions named ``N H W Ho Wo S``, or ``H8`` and the like
            for what is continued to whole windows.
        height: LR height in pixels.
        width: LR width in pixels.
        scale: declared scales; ``S`` covers the native ones, or the whole numbers in between.
        batch: images at once.

    Returns:
        A range for each input with a dynamic dimension, and one of values for ``size``.

    Raises:
        ExportError: if a dimension has another name.
    """
    usual = min(max(_USUAL_SCALE, scale.min), scale.max)
    whole = scale.native or range(max(1, math.floor(scale.min)), math.ceil(scale.max) + 1)
    rows = [output_length(n, s) for n, s in _corners(height, scale, usual)]
    cols = [output_length(n, s) for n, s in _corners(width, scale, usual)]
    native = min(sorted(whole), key=lambda s: abs(s - usual))
    lengths = {
        "N": (batch.min, batch.opt, batch.max),
        "H": (height.min, height.opt, height.max),
        "W": (width.min, width.opt, width.max),
        "Ho": (1, rows[1], rows[2]),
        "Wo": (1, cols[1], cols[2]),
        "S": (min(whole), native, max(whole)),
    }
    profile = {}
    for tensor in inputs:
        if tensor.name == SIZE_INPUT and tensor.dtype == "int64":
            low, opt, high = zip(rows, cols, strict=True)
            profile[tensor.name] = ShapeRange(min=low, opt=opt, max=high, of="values")
            continue
        named = [d for d in tensor.shape if isinstance(d, str)]
        unknown = [d for d in named if split_dimension(d)[0] not in lengths]
        if unknown:
            raise ExportError(
                f"input {tensor.name!r} has a dimension {unknown[0]!r} of unknown range; known "
                f"are {', '.join(lengths)}"
            )
        if named:
            triples = [
                _range(d, lengths) if isinstance(d, str) else (d, d, d) for d in tensor.shape
            ]
            low, opt, high = zip(*triples, strict=True)
            profile[tensor.name] = ShapeRange(min=low, opt=opt, max=high)
    return profile


def _range(name: str, lengths: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    axis, window = split_dimension(name)
    least, usual, most = lengths[axis]
    return continued(least, window), continued(usual, window), continued_most(most, window)


def _corners(
    size: SizeRange, scale: ScaleRange, usual: float
) -> tuple[tuple[int, float], tuple[int, float], tuple[int, float]]:
    return (size.min, scale.min), (size.opt, usual), (size.max, scale.max)


def graph_sha256(onnx_path: Path) -> str:
    """Hash of an ONNX graph: of the file, or of the file and its external weights together.

    Raises:
        ArtifactError: if the file or its weights are missing, or it is not ONNX.
    """
    import onnx

    try:
        own = sha256_file(onnx_path).sha256
        model = onnx.load(str(onnx_path), load_external_data=False)
    except OSError as error:
        raise ArtifactError(f"{onnx_path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # The protobuf library has several decode errors of no common public base.
        raise ArtifactError(f"{onnx_path} is not an ONNX graph") from error
    places = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if not places:
        return own
    digest = hashlib.sha256(own.encode())
    for place in sorted(places):
        weights = onnx_path.parent / place
        if not weights.is_file():
            raise ArtifactError(f"weights {place} of {onnx_path.name} are missing")
        digest.update(sha256_file(weights).sha256.encode())
    return digest.hexdigest()


def build_engine(
    onnx_path: Path,
    target: Path,
    profile: Mapping[str, ShapeRange],
    options: TensorRTOptions | None = None,
) -> EngineInfo:
    """Build an engine and its record ``TARGET.json``; whatever fails, nothing is half-written.

    Args:
        onnx_path: the graph; external weights lie beside it.
        target: the engine to write; replaced when it exists. Its directory is created.
        profile: ranges of every dynamic input, see :func:`profile_for`.
        options: see :class:`TensorRTOptions`.

    Returns:
        The record, as written.

    Raises:
        ArtifactError: if the graph is missing or is not ONNX.
        BackendError: if no library is installed that can build here.
        UnsupportedOpError: if the graph holds an operation that the library does not know.
        ExportError: if the library refuses the graph or the profile otherwise.
        OutOfMemoryError: if the builder runs out of memory.
        OutputError: if the engine cannot be written.
    """
    options = options or TensorRTOptions()
    digest = graph_sha256(onnx_path)
    library, device = _choose(options)
    capabilities = _capabilities(library, device, options)
    if target.is_dir():
        raise OutputError(f"{target} is a directory, not an engine to replace")
    start = time.perf_counter()
    with logged(library) as (logger, messages):
        build = NetworkBuild(library, logger, messages, onnx_path)
        build.parse()
        build.add_profile(profile)
        plan = build.compile(capabilities, options.workspace, options.optimization_level)
        info = EngineInfo(
            library=library.name,
            version=library.version,
            compute_capabilities=capabilities,
            onnx_sha256=digest,
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            bytes=len(plan),
            build_seconds=round(time.perf_counter() - start, 3),
            inputs=build.inputs(),
            outputs=build.outputs(),
            profile=build.accepted_profile(),
            network_layers=build.network.num_layers,
            precisions=build.precisions(),
            warnings=messages.warnings,
        )
    return _write(target, plan, info, library, device)


def _write(
    target: Path, plan: bytes, info: EngineInfo, library: Library, device: Device | None
) -> EngineInfo:
    part, record = Pending(target, follow=False), Pending(record_path(target), follow=False)
    with written(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write(plan)
            info = _count_layers(info, part.path, library, device)
            record.write(msgspec.json.format(msgspec.json.encode(info), indent=1) + b"\n")
            # The record first: if only one of the two gets its name, the hashes disagree and
            # readers refuse the pair. An engine without a record would pass for another tool's.
            record.commit()
            part.commit()
        finally:
            part.discard()
            record.discard()
    return info


def _count_layers(
    info: EngineInfo, engine: Path, library: Library, device: Device | None
) -> EngineInfo:
    """Open the engine where this GPU can, which also proves that it opens."""
    if device is None or mismatch(info, library.name, library.version, device.compute_capability):
        return info
    layers = int(open_engine(engine, library, device).num_layers)
    return msgspec.structs.replace(info, engine_layers=layers)


def _choose(options: TensorRTOptions) -> tuple[Library, Device | None]:
    try:
        device: Device | None = find_device()
        reason = ""
    except BackendError as error:
        device, reason = None, str(error)
    if options.library:
        library = load_library(options.library)
        if library.name == "tensorrt" and device is None:
            raise BackendError(
                f"TensorRT builds engines only where there is a GPU ({reason}); tensorrt_rtx "
                "builds ahead of time"
            )
        return library, device
    for library in installed():
        if library.name == "tensorrt_rtx" or device is not None:
            return library, device
    return load_library("tensorrt_rtx"), device


def _capabilities(
    library: Library, device: Device | None, options: TensorRTOptions
) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(options.compute_capabilities))
    if library.name == "tensorrt":
        here = device.compute_capability if device else ""
        if wanted not in ((), (here,)):
            raise ExportError(
                f"TensorRT builds for the present GPU ({here}), not for {', '.join(wanted)}; "
                "tensorrt_rtx builds for others"
            )
        return (here,)
    known = library.module.ComputeCapability.__members__
    for capability in wanted:
        if capability_member(capability) not in known:
            names = [f"{n[2:-1]}.{n[-1]}" for n in known if n.startswith("SM")]
            raise ExportError(
                f"{library.title} does not build for compute capability {capability!r}, known: "
                f"{', '.join(names)}"
            )
    return wanted or (PORTABLE,)
