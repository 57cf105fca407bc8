"""TensorRT and TensorRT-RTX: engines on an NVIDIA GPU, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from scaleport.aliases import Array
from scaleport.errors import ArtifactError, BackendError, ScaleportError, UsageError
from scaleport.runtimes.base import (
    Availability,
    Backend,
    GraphFile,
    SessionOptions,
    Work,
)
from scaleport.runtimes.cuda import Device, find_device, runtime
from scaleport.runtimes.engine_library import EXTRAS, Library, installed, load_library
from scaleport.runtimes.engine_record import (
    EngineInfo,
    mismatch,
    read_record,
)
from scaleport.runtimes.engine_session import (
    REBUILD,
    EngineSession,
)
from scaleport.runtimes.gpu import GPU_WORK, gpu_arrays
from scaleport.runtimes.inside import Inner, Operations

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph


class TensorRTBackend(Backend):
    """Runs engines built by TensorRT or TensorRT-RTX, each with the library that built it."""

    name = "tensorrt"
    graph_format = "tensorrt"
    title: ClassVar[str] = "TensorRT"
    rank: ClassVar[int] = 10
    packages: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt-rtx")
    source_format: ClassVar[str] = "onnx"
    whole_stage: ClassVar[str] = "whole_size"
    declared_sizes_only: ClassVar[bool] = True

    def devices(self) -> tuple[str, ...]:
        """The GPU that engines run on by default, if there is one."""
        try:
            return (f"cuda:{find_device().index}",)
        except ScaleportError:
            return ()

    def inner(self, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
        """Every tensor of an ONNX graph, in an engine that is built for these shapes."""
        from scaleport.runtimes import tensorrt_inside

        return tensorrt_inside.inner(self, path, feeds)

    def operations(self, path: Path, graph: Graph) -> Operations:
        """Layers that an ONNX graph is parsed to; there need be no GPU."""
        from scaleport.runtimes import tensorrt_inside

        return tensorrt_inside.operations(path)

    def work(self, options: SessionOptions) -> Work:
        """Large pieces of equal shape."""
        return GPU_WORK

    def availability(self) -> Availability:
        """Whether engines can run here; ``can_build`` where they can at least be built.

        TensorRT-RTX builds ahead of time without a GPU, the full TensorRT does not.
        """
        libraries = installed()
        version = ", ".join(library.title for library in libraries)
        names = [library.name for library in libraries]
        missing = ""
        device: Device | None = None
        try:
            runtime()
        except BackendError as error:
            reason = f"{error}."
            missing = EXTRAS[names[0]] if names else ""
        else:
            try:
                device = find_device()
                reason = ""
            except ScaleportError as error:
                reason = f"There is no usable NVIDIA GPU or driver: {error}."
        if not libraries:
            reason = "Neither TensorRT nor TensorRT-RTX is installed."
            missing = EXTRAS["tensorrt" if device else "tensorrt_rtx"]
        return Availability(
            usable=not reason,
            reason=reason,
            extra=missing,
            device=f"{device.name} (compute capability {device.compute_capability})"
            if device and libraries
            else "",
            version=version,
            can_build="tensorrt_rtx" in names or (not reason and bool(names)),
        )

    def load(self, graph: GraphFile, options: SessionOptions) -> EngineSession:
        """Open an engine on a GPU.

        Args:
            graph: the engine file.
            options: ``device`` is the GPU's number, ``1`` or ``cuda:1``. ``threads`` and
                ``cache_dir`` have no meaning here.

        Raises:
            ArtifactError: if the engine is missing or damaged, or was built by another version of
                the library or for another GPU: it must be built again from its ONNX graph.
            BackendError: if the library or a GPU is missing, or a lower inference precision is
                asked for; an engine's precision is fixed when it is built.
            OutOfMemoryError: if the GPU's memory does not hold the engine.
        """
        if options.inference_precision not in ("", "fp32"):
            raise BackendError(
                "an engine's precision is fixed when it is built; load the fp16 engine instead of "
                f"asking for {options.inference_precision!r}"
            )
        index = _device_index(options.device)
        info = read_record(graph.path)
        library = _library_for(info)
        _refuse_mismatch(graph.path, info, library, "")
        device = find_device(index)
        _refuse_mismatch(graph.path, info, library, device.compute_capability)
        arrays = gpu_arrays(index)
        if arrays is None:
            raise BackendError(
                "engines need a library that holds their values in the GPU's memory: "
                "pip install cupy-cuda13x (or cupy-cuda12x), or PyTorch for CUDA"
            )
        return EngineSession(graph.path, library, device, arrays)


def _device_index(text: str) -> int:
    number = text.removeprefix("cuda").removeprefix(":")
    if number and not number.isdecimal():
        raise UsageError(f"a TensorRT device is a GPU's number such as 0 or cuda:0, got {text!r}")
    return int(number or 0)


def _library_for(info: EngineInfo | None) -> Library:
    if info is not None:
        return load_library(info.library)
    libraries = installed()
    # With none installed this raises the error that says what to install.
    return libraries[0] if libraries else load_library("tensorrt")


def _refuse_mismatch(
    path: Path, info: EngineInfo | None, library: Library, compute_capability: str
) -> None:
    if info is None:
        return
    reason = mismatch(info, library.name, library.version, compute_capability)
    if reason:
        raise ArtifactError(f"{path.name} cannot run here, {reason}: {REBUILD}")
