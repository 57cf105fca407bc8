"""ExecuTorch: programs of fixed shape (``.pte``), through its Python runtime."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import threading
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import BackendError, OutOfMemoryError, UsageError, first_line
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    SessionOptions,
    Values,
    checked,
)
from scaleport.tensor import ElementType, TensorSpec

DEVICE: Final = "CPU (XNNPACK and portable operators)"
_PACKAGES: Final = ("executorch", "torch")
_TYPES: Final[dict[int, ElementType]] = {3: "int32", 4: "int64", 5: "float16", 6: "float32"}
"""Element types by their number in ExecuTorch's ``ScalarType``."""


class ExecuTorchSession:
    """One loaded program. Calls of many threads run one after the other: they share its memory."""

    def __init__(self, program: Any, graph: GraphFile) -> None:
        import torch

        self._from_numpy = torch.from_numpy
        self._turn = threading.Lock()
        self._program: Any = program
        self._method: Any = program.load_method("forward")
        meta = self._method.metadata
        self.inputs = tuple(
            _spec(name, meta.input_tensor_meta(i)) for i, name in enumerate(graph.inputs)
        )
        self.outputs = tuple(
            _spec(name, meta.output_tensor_meta(i)) for i, name in enumerate(graph.outputs)
        )
        self.device = DEVICE

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the program once; values are in host memory."""
        del keep
        arrays = checked(feeds, self.inputs)
        with self._turn:
            if self._method is None:
                raise BackendError("the session is closed; load the bundle again")
            try:
                results = self._method.execute([self._tensor(array) for array in arrays.values()])
            except MemoryError as error:
                raise OutOfMemoryError("ExecuTorch ran out of memory") from error
            except Exception as error:
                text = first_line(error)
                if "memory" in text.lower() and "alloc" in text.lower():
                    raise OutOfMemoryError(f"ExecuTorch ran out of memory: {text}") from error
                raise BackendError(f"ExecuTorch failed: {text}") from error
            pairs = zip(self.outputs, results, strict=True)
            return {spec.name: np.ascontiguousarray(value.numpy()) for spec, value in pairs}

    def _tensor(self, array: Array) -> Any:
        return self._from_numpy(array if array.flags.writeable else array.copy())

    def close(self) -> None:
        """Release the program."""
        with self._turn:
            self._method = self._program = None


def _spec(name: str, info: Any) -> TensorSpec:
    dtype = _TYPES.get(int(info.dtype()))
    if dtype is None:
        raise BackendError(f"tensor {name!r} has an element type that no graph of ours has")
    return TensorSpec(name, dtype, tuple(info.sizes()))


class ExecuTorchBackend(Backend):
    """Runs ExecuTorch programs on the CPU, in the precision that they were written in.

    The library has one pool of threads for the whole process and chooses their number itself.
    """

    name = "executorch"
    graph_format = "executorch"
    title: ClassVar[str] = "ExecuTorch"
    rank: ClassVar[int] = 70
    packages: ClassVar[tuple[str, ...]] = ("executorch", "torch")
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16")

    def availability(self) -> Availability:
        """Say whether the packages are installed. They are not imported, which takes seconds."""
        for package in _PACKAGES:
            if not _installed(package):
                return Availability(False, f"{package} is not installed", extra="executorch")
        version = importlib.metadata.version("executorch")
        return Availability(True, device=DEVICE, version=version)

    def load(self, graph: GraphFile, options: SessionOptions) -> ExecuTorchSession:
        """Load a program.

        Raises:
            BackendError: if a package is missing, or ExecuTorch refuses the program.
            UsageError: if the options ask for a device or precision that does not exist.
        """
        if options.device not in ("", "cpu"):
            raise UsageError(f"executorch has no device {options.device!r} here, only cpu")
        if options.inference_precision not in ("", "fp32"):
            raise UsageError(
                "executorch runs a program in the precision it is written in; export another "
                f"precision instead of asking for {options.inference_precision!r}"
            )
        runtime = _runtime()
        try:
            return ExecuTorchSession(runtime.load_program(Path(graph.path)), graph)
        except BackendError:
            raise
        except Exception as error:
            text = first_line(error)
            raise BackendError(f"ExecuTorch refuses {graph.path.name}: {text}") from error


def _installed(package: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):  # an import hook may refuse to look
        return importlib.util.find_spec(package) is not None
    return False


def _runtime() -> Any:
    """The library's runtime.

    Raises:
        BackendError: if it is not installed or cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its interface may change
            from executorch.runtime import Runtime

            return Runtime.get()
    except ImportError as error:
        raise BackendError(
            f"ExecuTorch cannot be used: {first_line(error)}; install it with: "
            "pip install 'scaleport[executorch]'"
        ) from error
