"""PyTorch: the deploy form of the bundle's own checkpoint, without an exported graph."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from scaleport.errors import BackendError, OutOfMemoryError, UsageError, first_line
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    Outputs,
    SessionOptions,
    TensorSpec,
)
from scaleport.runtimes.feeds import checked

if TYPE_CHECKING:
    from scaleport.models.base import DeployForm, Stage

_PRECISIONS = ("fp32", "fp16")


class TorchSession:
    """One stage of the deploy form."""

    def __init__(self, stage: Stage, device: str) -> None:
        import torch

        self._torch = torch
        self._stage = stage
        self._module = stage.module.to(device)
        self.device = device
        self.inputs = tuple(_spec(port) for port in stage.inputs)
        self.outputs = tuple(_spec(port) for port in stage.outputs)

    def run(self, feeds: Feeds) -> Outputs:
        """Run the stage once."""
        torch = self._torch
        arrays = checked(feeds, self.inputs)
        tensors = [torch.from_numpy(arrays[s.name]).to(self.device) for s in self.inputs]
        try:
            with torch.inference_mode():
                result = self._module(*tensors)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"PyTorch ran out of memory: {error}") from error
        except RuntimeError as error:
            text = first_line(error)
            if "allocate memory" in text:
                raise OutOfMemoryError(f"PyTorch ran out of memory: {text}") from error
            raise BackendError(f"PyTorch failed: {text}") from error
        results = [result] if isinstance(result, torch.Tensor) else list(result)
        return {
            spec.name: np.ascontiguousarray(value.cpu().numpy())
            for spec, value in zip(self.outputs, results, strict=True)
        }


def _spec(port: Any) -> TensorSpec:
    dtype = np.dtype(str(port.dtype).removeprefix("torch."))
    return TensorSpec(port.name, dtype, tuple(d if isinstance(d, int) else -1 for d in port.shape))


@lru_cache(maxsize=4)
def _deploy(path: Path, stamp: float, precision: str) -> DeployForm:
    del stamp
    import torch

    from scaleport.models import load_checkpoint

    return load_checkpoint(path).deploy(torch.float16 if precision == "fp16" else torch.float32)


class TorchBackend(Backend):
    """Runs the checkpoint that the bundle carries, in its deploy form."""

    name = "torch"
    graph_format = "torch"
    title: ClassVar[str] = "PyTorch"
    rank: ClassVar[int] = 50
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    runs_checkpoint: ClassVar[bool] = True
    source_format: ClassVar[str] = "onnx"
    precisions: ClassVar[tuple[str, ...]] = _PRECISIONS
    whole_stage: ClassVar[str] = ""

    def glance(self) -> Availability:
        """Whether torch is installed, without the second or two of importing it."""
        try:
            if find_spec("torch") and find_spec("safetensors"):
                device = "a device that -v shows (it has to import torch)"
                return Availability(True, device=device, version=version("torch"))
        except (ImportError, ValueError, PackageNotFoundError):
            pass
        return self.availability()

    def devices(self) -> tuple[str, ...]:
        """The processor, and every NVIDIA GPU that PyTorch sees."""
        try:
            import torch
        except ImportError:
            return ()
        return ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())))

    def availability(self) -> Availability:
        """Say whether torch and safetensors are installed."""
        try:
            import safetensors.torch
            import torch
        except ImportError as error:
            return Availability(False, f"{error}", extra="torch")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        del safetensors
        return Availability(True, device=device, version=str(torch.__version__))

    def load(self, graph: GraphFile, options: SessionOptions) -> TorchSession:
        """Load a stage of the checkpoint at ``graph.path``; ``options.threads`` is process-wide."""
        found = self.availability()
        if not found.usable:
            raise BackendError(f"{found.reason}: pip install 'scaleport[torch]'")
        if graph.precision not in _PRECISIONS:
            raise UsageError(f"the torch backend runs {' and '.join(_PRECISIONS)} only")
        if options.inference_precision:
            raise BackendError("the torch backend computes in the precision of the graph")
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        form = _deploy(graph.path, graph.path.stat().st_mtime, graph.precision)
        stage = form.stage(graph.stage)
        if stage is None:
            raise BackendError(f"this network has no stage {graph.stage!r}")
        device = options.device or found.device
        try:
            return TorchSession(stage, device)
        except (RuntimeError, AssertionError) as error:  # the latter: built without CUDA
            text = first_line(error)
            raise BackendError(f"PyTorch cannot use device {device!r}: {text}") from error
