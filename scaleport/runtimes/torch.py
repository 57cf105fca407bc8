"""PyTorch: the deploy form of the bundle's own checkpoint, without an exported graph."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from scaleport.errors import BackendError, OutOfMemoryError, UsageError, first_line
from scaleport.runtimes.arrays import HOST, Arrays
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    SessionOptions,
    Value,
    Values,
    Work,
    checked_values,
)
from scaleport.runtimes.forked import in_usable_thread
from scaleport.runtimes.gpu import GPU_WORK
from scaleport.runtimes.torch_arrays import torch_arrays
from scaleport.runtimes.torch_precision import IEEE, TF32, float32_arithmetic

if TYPE_CHECKING:
    import torch

    from scaleport.models.base import DeployForm, Stage

_PRECISIONS: Final = ("fp32", "fp16")


class TorchSession:
    """One stage of the deploy form. Its network is shared, and never changed.

    On a processor only as many calls run at once as there are processors for their threads: more
    would wait for each other inside PyTorch, where waiting costs a processor.
    """

    def __init__(
        self, form: DeployForm, stage: Stage, device: str, options: SessionOptions
    ) -> None:
        import torch

        self._torch = torch
        self._form: DeployForm | None = form  # keeps the shared network alive
        self._stage = stage
        self._target = torch.device(device)
        self._threads = options.threads
        self._lowered = _LOWERED.get(options.inference_precision, "")
        self._float32 = TF32 if options.inference_precision == "tf32" else IEEE
        self._on_host = self._target.type == "cpu"
        threads = options.threads or torch.get_num_threads()
        turns = max(1, (os.cpu_count() or 1) // threads)
        self._turn: contextlib.AbstractContextManager[Any] = (
            threading.BoundedSemaphore(turns) if self._on_host else contextlib.nullcontext()
        )
        self.arrays: Arrays = HOST if self._on_host else torch_arrays(device)
        shown = options.inference_precision
        self.device = f"{device} ({shown})" if shown not in ("", "fp32") else device
        self.inputs, self.outputs = stage.inputs, stage.outputs

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the stage once."""
        torch = self._torch
        if self._form is None:
            raise BackendError("the session is closed; load the bundle again")
        values = checked_values(feeds, self.inputs)
        try:
            with self._turn:
                results = in_usable_thread(lambda: self._computed(values))
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"PyTorch ran out of memory: {error}") from error
        except RuntimeError as error:
            text = first_line(error)
            if "allocate memory" in text:
                raise OutOfMemoryError(f"PyTorch ran out of memory: {text}") from error
            raise BackendError(f"PyTorch failed: {text}") from error
        return {
            spec.name: self._handed_out(value, spec.name in keep)
            for spec, value in zip(self.outputs, results, strict=True)
        }

    def _computed(self, values: dict[str, Value]) -> list[torch.Tensor]:
        with self._arithmetic():
            result = self._stage.module(*[self._tensor(value) for value in values.values()])
            results = [result] if isinstance(result, self._torch.Tensor) else list(result)
            return [value.to(self._torch.float32) for value in results]

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        torch = self._torch
        lowered: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self._lowered:
            kind = getattr(torch, self._lowered)
            lowered = torch.autocast(self._target.type, dtype=kind, cache_enabled=False)
        with (
            _threads(torch, self._threads if self._on_host else 0),
            float32_arithmetic(self._float32),
            torch.inference_mode(),
            lowered,
        ):
            yield

    def _tensor(self, value: Value) -> torch.Tensor:
        if self._on_host:
            array = self.arrays.unwrap(value)
            return self._torch.from_numpy(array if array.flags.writeable else array.copy())
        native: torch.Tensor = self.arrays.unwrap(value)
        return native

    def _handed_out(self, value: torch.Tensor, kept: bool) -> Value:
        if self._on_host:
            # Kept values go back into PyTorch, in whatever order it likes best.
            array = value.numpy()
            return array if kept else np.ascontiguousarray(array)
        return self.arrays.wrap(value) if kept else self.arrays.download(value)

    def close(self) -> None:
        """Let go of the network, which other sessions may share."""
        self._form = None


_LOWERED: Final = {"bf16": "bfloat16", "fp16": "float16"}


@contextlib.contextmanager
def _threads(torch: Any, count: int) -> Iterator[None]:
    """A number of threads for the time of a call: PyTorch knows one for the whole process."""
    before = torch.get_num_threads()
    if not count or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_forms: weakref.WeakValueDictionary[tuple[Any, ...], DeployForm] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _deploy(path: Path, precision: str, device: str) -> DeployForm:
    """The deploy form on a device, shared by the sessions that are open, for nobody to change."""
    import torch

    from scaleport.models import load_checkpoint
    from scaleport.models.layers import convolutions_channels_last

    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_size, precision, device)
    with _loading:
        form = _forms.get(key)
        if form is None:
            kind = torch.float16 if precision == "fp16" else torch.float32
            form = load_checkpoint(path).deploy(kind)
            for stage in form.stages():
                stage.module.to(device)
                if precision == "fp16" and not device.startswith("cpu"):
                    convolutions_channels_last(stage.module)
            _forms[key] = form
        return form


class TorchBackend(Backend):
    """Runs the checkpoint that the bundle carries, in its deploy form.

    ``fp32`` is IEEE arithmetic, whatever PyTorch is set to. Asked for as inference precisions:
    ``tf32`` on an NVIDIA GPU, ``bf16`` and ``fp16`` wherever PyTorch has automatic mixed precision.
    """

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

    def inference_precisions(self, device: str = "") -> tuple[str, ...]:
        """float32, automatic mixed precision, and TF32 on an NVIDIA GPU."""
        device = device or self.availability().device
        return ("fp32", *(("tf32",) if device.startswith("cuda") else ()), *_LOWERED)

    def work(self, options: SessionOptions) -> Work:
        """Large pieces on a GPU, pieces that fit the cache on a processor."""
        device = options.device or self.availability().device
        return Work() if device.startswith("cpu") else GPU_WORK

    def load(self, graph: GraphFile, options: SessionOptions) -> TorchSession:
        """Load a stage of the checkpoint at ``graph.path``.

        Raises:
            BackendError: if PyTorch is missing, cannot use the device, or cannot compute in the
                inference precision there.
            UsageError: if the precision is not one that PyTorch runs.
        """
        found = self.availability()
        if not found.usable:
            raise BackendError(f"{found.reason}: pip install 'scaleport[torch]'")
        if graph.precision not in _PRECISIONS:
            raise UsageError(f"the torch backend runs {' and '.join(_PRECISIONS)} only")
        device = options.device or found.device
        asked = options.inference_precision
        if asked == "tf32" and not device.startswith("cuda"):
            raise BackendError(f"tf32 needs an NVIDIA GPU; the device is {device}")
        if asked and asked not in self.inference_precisions(device):
            raise UsageError(f"torch knows no inference precision {asked!r}")
        try:
            form = _deploy(graph.path, graph.precision, device)
        except (RuntimeError, AssertionError) as error:  # the latter: built without CUDA
            text = first_line(error)
            raise BackendError(f"PyTorch cannot use device {device!r}: {text}") from error
        stage = form.stage(graph.stage)
        if stage is None:
            raise BackendError(f"this network has no stage {graph.stage!r}")
        stage.module.to(device)  # one that was made just now is on the processor
        return TorchSession(form, stage, device, options)
