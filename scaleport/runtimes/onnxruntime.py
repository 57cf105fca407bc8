"""ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from scaleport.aliases import Array
from scaleport.errors import BackendError, OutOfMemoryError, ScaleportError, first_line
from scaleport.runtimes.arrays import HOST, Arrays
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    SessionOptions,
    Values,
    Work,
    checked,
    checked_values,
)
from scaleport.runtimes.device_arrays import DeviceArrays
from scaleport.runtimes.gpu import GPU_WORK, gpu_arrays
from scaleport.runtimes.inside import Inner, Operations
from scaleport.tensor import ElementType, TensorSpec, dimension

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph

_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"
_GPU: Final = re.compile(r"cuda(?::(\d+))?")

_TYPES: Final[dict[str, ElementType]] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxRuntimeSession:
    """One graph in ONNX Runtime, which many threads may run at once.

    On a GPU values stay in its memory, as arrays of PyTorch or CuPy, whichever is there; without
    either they pass through host memory, and :attr:`device` says so.
    """

    def __init__(self, session: Any, arrays: Arrays) -> None:
        self._session = session
        self.arrays = arrays
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        provider = str(session.get_providers()[0])
        through = provider == _CUDA and not isinstance(arrays, DeviceArrays)
        note = " (values pass through host memory: install cupy or torch)" if through else ""
        self.device = provider + note

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the graph once."""
        session = self._session
        if session is None:
            raise BackendError("the session is closed; load the bundle again")
        try:
            if isinstance(self.arrays, DeviceArrays):
                return self._run_bound(session, self.arrays, feeds, keep)
            results = session.run(self._names, checked(feeds, self.inputs))
        except ScaleportError:
            raise
        except Exception as error:
            text = first_line(error)
            if "allocate memory" in text or "bad_alloc" in text:
                raise OutOfMemoryError(f"ONNX Runtime ran out of memory: {text}") from error
            raise BackendError(f"ONNX Runtime failed: {text}") from error
        return dict(zip(self._names, results, strict=True))

    def _run_bound(
        self, session: Any, arrays: DeviceArrays, feeds: Feeds, keep: Collection[str]
    ) -> Values:
        """One call with inputs and outputs in the memory of the GPU."""
        kind, _, number = arrays.device.partition(":")
        place = (kind, int(number or 0))
        binding = session.io_binding()
        natives = {}
        for name, value in checked_values(feeds, self.inputs).items():
            native = natives[name] = arrays.dense(arrays.unwrap(value))
            address = arrays.address(native)
            shape = [int(length) for length in native.shape]
            binding.bind_input(name, *place, value.dtype, shape, address)
        for name in self._names:
            binding.bind_output(name, *place)
        # ONNX Runtime has a stream of its own: it begins when the inputs are there, and returns
        # when the outputs are.
        arrays.synchronize()
        session.run_with_iobinding(binding)
        outputs: Values = {}
        for name, result in zip(self._names, binding.get_outputs(), strict=True):
            native = arrays.adopt(result._ortvalue)
            outputs[name] = arrays.wrap(native) if name in keep else arrays.download(native)
        return outputs

    def close(self) -> None:
        """Release the graph; calls that are under way come to their end."""
        self._session = None


def _spec(value: Any) -> TensorSpec:
    if value.type not in _TYPES:
        raise BackendError(f"ONNX Runtime: tensor {value.name!r} has type {value.type}")
    return TensorSpec(value.name, _TYPES[value.type], tuple(map(dimension, value.shape)))


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

    def inference_precisions(self, device: str = "") -> tuple[str, ...]:
        """float32, and TF32 on an NVIDIA GPU; the rest is in the graphs."""
        try:
            import onnxruntime
        except ImportError:
            return ("fp32",)
        on_gpu = _provider(onnxruntime, SessionOptions(device=device)) == _CUDA
        return ("fp32", "tf32") if on_gpu else ("fp32",)

    def work(self, options: SessionOptions) -> Work:
        """Large pieces of equal shape on a GPU, pieces that fit the cache on a processor."""
        try:
            import onnxruntime
        except ImportError:
            return Work()
        return GPU_WORK if _provider(onnxruntime, options) == _CUDA else Work()

    def availability(self) -> Availability:
        """Say whether the package is installed and with which provider it will run."""
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, f"{error}", extra="onnxruntime")
        device = _provider(onnxruntime, SessionOptions())
        return Availability(True, device=device, version=onnxruntime.__version__)

    def load(self, graph: GraphFile, options: SessionOptions) -> OnnxRuntimeSession:
        """Load a graph; ``options.device`` may name another provider of the installed build."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "onnxruntime is not installed: pip install 'scaleport[onnxruntime]'"
            ) from error
        provider = _provider(onnxruntime, options)
        asked = options.inference_precision or "fp32"
        if asked not in self.inference_precisions(options.device):
            raise BackendError(
                f"ONNX Runtime on {provider} computes in the precision of the graph, not in "
                f"{asked}; choose another graph with precision="
            )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        # Each session has threads of its own. Those of one stage would go on spinning while the
        # next one computes, on the same processors: 96x96 pixels took twice as long.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        if options.threads:
            settings.intra_op_num_threads = options.threads
            settings.inter_op_num_threads = 1
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"this onnxruntime has no {provider}; it has "
                f"{', '.join(onnxruntime.get_available_providers())}"
            )
        # The CPU provider stays behind the chosen one for nodes that it does not take; what is
        # reported is what ONNX Runtime says that it registered.
        providers: list[Any] = list(dict.fromkeys([provider, _CPU]))
        if provider == _CUDA:
            providers[0] = (provider, _cuda_options(options, asked == "tf32"))
        try:
            session = onnxruntime.InferenceSession(
                str(graph.path), settings, providers=providers, **dict(options.extra)
            )
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime refuses {graph.path.name}: {first_line(error)}"
            ) from error
        real = str(session.get_providers()[0])
        return OnnxRuntimeSession(session, _arrays(options) if real == _CUDA else HOST)


def _provider(onnxruntime: Any, options: SessionOptions) -> str:
    """The provider that is asked for, ``cuda`` and ``cuda:1`` among them, or the best there is."""
    if options.device:
        return _CUDA if _GPU.fullmatch(options.device) else options.device
    # TensorRT has a backend of its own and builds engines for minutes behind the user's back.
    known = (_CUDA, "DmlExecutionProvider")
    available = onnxruntime.get_available_providers()
    return next((p for p in known if p in available), _CPU)


def _gpu_index(options: SessionOptions) -> int:
    found = _GPU.fullmatch(options.device)
    return int(found.group(1) or 0) if found else 0


def _cuda_options(options: SessionOptions, tf32: bool) -> dict[str, str]:
    return {
        "device_id": str(_gpu_index(options)),
        # On by default, and then float32 is not float32.
        "use_tf32": "1" if tf32 else "0",
        # The default searches among all algorithms again for every shape it meets.
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def _arrays(options: SessionOptions) -> Arrays:
    return gpu_arrays(_gpu_index(options)) or HOST
