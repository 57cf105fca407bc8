"""OpenVINO."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import BackendError, OutOfMemoryError, UsageError, last_line
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    SessionOptions,
    Values,
    checked,
)
from scaleport.runtimes.inside import Inner, Operations
from scaleport.runtimes.openvino_core import shared_core
from scaleport.runtimes.pool import Pool
from scaleport.tensor import UNNAMED, TensorSpec, element_type

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph

_HINTS = {"": "f32", "fp32": "f32", "bf16": "bf16", "fp16": "f16"}


_SHAPES_KEPT: Final = 64
"""Prepared operations that a graph keeps for shapes it has met. OpenVINO's own 5000 let a process
grow to more than twice its size on pictures of many sizes, and are not faster."""


class OpenVinoSession:
    """One compiled graph, with a request of its own for every caller at a time.

    Values are numpy arrays: OpenVINO computes in host memory, and reads what it is fed where it
    lies. On a device of its own (``GPU``, ``NPU``) its plug-in copies.
    """

    def __init__(self, compiled: Any, graph: GraphFile, device: str) -> None:
        import openvino

        self._tensor: Any = openvino.Tensor
        self._requests: Pool[Any] = Pool(compiled.create_infer_request)
        self.inputs = tuple(_spec(port, graph.inputs) for port in compiled.inputs)
        self.outputs = tuple(_spec(port, graph.outputs) for port in compiled.outputs)
        self.device = device

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the graph once."""
        del keep  # the next caller of a request overwrites what it computed
        arrays = checked(feeds, self.inputs)
        try:
            with self._requests.borrowed() as request:
                for place, array in enumerate(arrays.values()):
                    request.set_input_tensor(place, self._tensor(array, shared_memory=True))
                request.infer()
                return {
                    spec.name: np.array(request.get_output_tensor(place).data)
                    for place, spec in enumerate(self.outputs)
                }
        except BackendError:
            raise
        except Exception as error:
            text = last_line(error)
            if "bad_alloc" in str(error) or "allocate" in text:
                raise OutOfMemoryError(f"OpenVINO ran out of memory: {text}") from error
            raise BackendError(f"OpenVINO failed: {text}") from error

    def close(self) -> None:
        """Release the requests and the compiled graph."""
        self._requests.close()


def _spec(port: Any, declared: tuple[str, ...]) -> TensorSpec:
    # A port has several names where a conversion was folded into it; one of them is ours.
    names = port.get_names()
    name = next((n for n in declared if n in names), None) or min(names)
    # The names that dimensions had in ONNX are not kept.
    shape = tuple(d.get_length() if d.is_static else UNNAMED for d in port.get_partial_shape())
    dtype = element_type(np.dtype(port.get_element_type().to_dtype()).name)
    if dtype is None:
        raise BackendError(f"OpenVINO: tensor {name!r} has type {port.get_element_type()}")
    return TensorSpec(name, dtype, shape)


class OpenVinoBackend(Backend):
    """Runs the OpenVINO IR on the CPU, or on the device named in the options.

    Graphs run in float32 arithmetic where nothing else is asked for: on processors with bf16
    units OpenVINO would otherwise lower the precision by itself.
    """

    name = "openvino"
    graph_format = "openvino"
    title: ClassVar[str] = "OpenVINO"
    rank: ClassVar[int] = 30
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    judges_int8: ClassVar[int] = 2

    def devices(self) -> tuple[str, ...]:
        """The devices that OpenVINO finds."""
        try:
            import openvino  # noqa: F401
        except ImportError:
            return ()
        try:
            return tuple(shared_core().available_devices)
        except BackendError:
            return ()

    def inference_precisions(self, device: str = "") -> tuple[str, ...]:
        """What the device says that it computes in, bf16 and fp16 among it."""
        try:
            import openvino  # noqa: F401

            found = shared_core().get_property(device or "CPU", "OPTIMIZATION_CAPABILITIES")
        except Exception:  # not installed, or no such device: load says so
            return ("fp32",)
        return ("fp32", *(name for name in ("bf16", "fp16") if name.upper() in found))

    def inner(self, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
        """Every tensor of an IR, on the CPU, in the precision of the graph."""
        from scaleport.runtimes import openvino_inside

        return openvino_inside.inner(path, feeds)

    def operations(self, path: Path, graph: Graph) -> Operations:
        """Operations of an IR by the device that takes them."""
        from scaleport.runtimes import openvino_inside

        return openvino_inside.operations(path)

    def availability(self) -> Availability:
        """Say whether the package is installed and what the CPU device calls itself."""
        try:
            import openvino
        except ImportError as error:
            return Availability(False, f"{error}", extra="openvino")
        try:
            devices = shared_core().available_devices
        except BackendError as error:
            return Availability(False, f"{error}", version=openvino.__version__)
        if not devices:
            return Availability(False, "OpenVINO finds no device", version=openvino.__version__)
        return Availability(True, device=", ".join(devices), version=openvino.__version__)

    def load(self, graph: GraphFile, options: SessionOptions) -> OpenVinoSession:
        """Load and compile a graph."""
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise BackendError(
                "openvino is not installed: pip install 'scaleport[openvino]'"
            ) from error
        if options.inference_precision not in _HINTS:
            raise UsageError(
                f"openvino knows the inference precisions {', '.join(p for p in _HINTS if p)}, "
                f"not {options.inference_precision!r}"
            )
        device = options.device or "CPU"
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[options.inference_precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if device == "CPU":
            config["CPU_RUNTIME_CACHE_CAPACITY"] = _SHAPES_KEPT
        if options.threads and device == "CPU":
            config["INFERENCE_NUM_THREADS"] = options.threads
        if options.cache_dir:
            config["CACHE_DIR"] = str(options.cache_dir)
        config.update(options.extra)
        core = shared_core()
        try:
            compiled = core.compile_model(core.read_model(str(graph.path)), device, config)
        except Exception as error:
            text = last_line(error)
            raise BackendError(f"OpenVINO refuses {graph.path.name}: {text}") from error
        real = compiled.get_property("EXECUTION_DEVICES")
        device = ", ".join(real) if isinstance(real, list) else str(real)
        return OpenVinoSession(compiled, graph, device)
