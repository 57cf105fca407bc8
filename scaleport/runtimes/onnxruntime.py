"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scaleport.errors import BackendError, OutOfMemoryError, first_line
from scaleport.runtimes.base import (
    Array,
    Availability,
    Backend,
    Feeds,
    GraphFile,
    Outputs,
    SessionOptions,
    TensorSpec,
)
from scaleport.runtimes.feeds import checked
from scaleport.runtimes.inside import Inner, Operations

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph

_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}


class OnnxRuntimeSession:
    """One graph in ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self.device = str(session.get_providers()[0])

    def run(self, feeds: Feeds) -> Outputs:
        """Run the graph once."""
        arrays = checked(feeds, self.inputs)
        try:
            results = self._session.run(self._names, arrays)
        except Exception as error:
            text = first_line(error)
            if "allocate memory" in text or "bad_alloc" in text:
                raise OutOfMemoryError(f"ONNX Runtime ran out of memory: {text}") from error
            raise BackendError(f"ONNX Runtime failed: {text}") from error
        return dict(zip(self._names, results, strict=True))


def _spec(value: Any) -> TensorSpec:
    if value.type not in _TYPES:
        raise BackendError(f"ONNX Runtime: tensor {value.name!r} has type {value.type}")
    shape = tuple(d if isinstance(d, int) else -1 for d in value.shape)
    return TensorSpec(value.name, _TYPES[value.type], shape)


class OnnxRuntimeBackend(Backend):
    """Runs the ONNX graphs; the first available provider of the installed build is used."""

    name = "onnxruntime"
    graph_format = "onnx"
    title: ClassVar[str] = "ONNX Runtime"
    rank: ClassVar[int] = 40
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")
    judges_int8: ClassVar[int] = 1

    def devices(self) -> tuple[str, ...]:
        """The providers of the installed build."""
        try:
            import onnxruntime
        except ImportError:
            return ()
        return tuple(onnxruntime.get_available_providers())

    def inner(self, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
        """Every tensor of an ONNX graph, unoptimised, on the CPU."""
        from scaleport.runtimes import onnxruntime_inside

        return onnxruntime_inside.inner(path, feeds)

    def operations(self, path: Path, graph: Graph) -> Operations:
        """Operations of an ONNX graph by the provider that ran each of them."""
        from scaleport.runtimes import onnxruntime_inside

        return onnxruntime_inside.operations(path, graph, self.availability().device)

    def availability(self) -> Availability:
        """Say whether the package is installed and with which provider it will run."""
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, f"{error}", extra="onnxruntime")
        return Availability(True, device=_provider(onnxruntime), version=onnxruntime.__version__)

    def load(self, graph: GraphFile, options: SessionOptions) -> OnnxRuntimeSession:
        """Load a graph; ``options.device`` may name another provider of the installed build."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "onnxruntime is not installed: pip install 'scaleport[onnxruntime]'"
            ) from error
        if options.inference_precision:
            raise BackendError(
                "onnxruntime computes in the precision of the graph; choose it with precision="
            )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        # Each session has threads of its own. Those of one stage would go on spinning while the
        # next one computes, on the same processors: 96x96 pixels took twice as long.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        if options.threads:
            settings.intra_op_num_threads = options.threads
            settings.inter_op_num_threads = 1
        provider = options.device or _provider(onnxruntime)
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"this onnxruntime has no {provider}; it has "
                f"{', '.join(onnxruntime.get_available_providers())}"
            )
        # The CPU provider stays behind the chosen one for nodes that it does not take; what is
        # reported is what ONNX Runtime says that it registered.
        providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
        try:
            session = onnxruntime.InferenceSession(
                str(graph.path), settings, providers=providers, **dict(options.extra)
            )
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime refuses {graph.path.name}: {first_line(error)}"
            ) from error
        return OnnxRuntimeSession(session)


def _provider(onnxruntime: Any) -> str:
    # TensorRT has a backend of its own and builds engines for minutes behind the user's back.
    known = ("CUDAExecutionProvider", "DmlExecutionProvider")
    available = onnxruntime.get_available_providers()
    return next((p for p in known if p in available), "CPUExecutionProvider")
