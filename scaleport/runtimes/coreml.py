"""Core ML: the system's runtime on a Mac, an evaluator of the same program elsewhere."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import platform
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from scaleport.aliases import Array
from scaleport.errors import BackendError, OutOfMemoryError, UsageError, first_line
from scaleport.mil import Evaluator, read_program
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphFile,
    Outputs,
    SessionOptions,
    Values,
    checked,
)
from scaleport.runtimes.inside import Inner, Operations
from scaleport.tensor import BATCH, TensorSpec

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph

EVALUATOR: Final = "MIL evaluator (numpy), not Core ML"

_UNITS: Final = {
    "": "ALL",
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu_and_gpu": "CPU_AND_GPU",
    "cpu_and_ne": "CPU_AND_NE",
}
_EVALUATOR_DEVICE: Final = "evaluator"


class CoreMLSession:
    """One loaded program.

    Where the program's batch is fixed to 1, the session takes any batch and runs the images one
    after the other; inputs without a batch are fed to every run. An input or output has a batch
    if it has 3 or more dimensions and the first is 1.
    """

    def __init__(self, runner: Any, evaluator: Evaluator, device: str) -> None:
        self._runner = runner
        self._turn = threading.Lock()
        self._single = {s.name for s in (*evaluator.inputs, *evaluator.outputs) if _is_single(s)}
        self.inputs = tuple(_any_batch(spec) for spec in evaluator.inputs)
        self.outputs = tuple(_any_batch(spec) for spec in evaluator.outputs)
        self.device = device

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the program, once or per image of the batch; values are in host memory."""
        del keep
        if self._runner is None:
            raise BackendError("the session is closed; load the bundle again")
        arrays = checked(feeds, self.inputs)
        batches = {name: len(arrays[name]) for name in arrays if name in self._single}
        if len(set(batches.values())) > 1:
            raise UsageError(f"the inputs differ in their batch: {batches}")
        count = next(iter(batches.values()), 1)
        if count == 1:
            return {**self._once(arrays)}
        parts = []
        for i in range(count):
            chosen = {n: a[i : i + 1] if n in self._single else a for n, a in arrays.items()}
            parts.append(self._once(chosen))
        return {
            spec.name: np.concatenate([part[spec.name] for part in parts])
            if spec.name in self._single
            else parts[0][spec.name]
            for spec in self.outputs
        }

    def close(self) -> None:
        """Let go of the program."""
        self._runner = None

    def _once(self, arrays: Outputs) -> Outputs:
        if isinstance(self._runner, Evaluator):
            return self._runner.run(arrays)
        try:
            with self._turn:  # Core ML's models are not for several threads at a time
                results = self._runner.predict(arrays)
            return {spec.name: np.asarray(results[spec.name], spec.dtype) for spec in self.outputs}
        except MemoryError as error:
            raise OutOfMemoryError("Core ML ran out of memory; use smaller tiles") from error
        except Exception as error:
            raise BackendError(f"Core ML failed: {first_line(error)}") from error


def _is_single(spec: TensorSpec) -> bool:
    return len(spec.shape) >= 3 and spec.shape[0] == 1


def _any_batch(spec: TensorSpec) -> TensorSpec:
    if not _is_single(spec):
        return spec
    return TensorSpec(spec.name, spec.dtype, (BATCH, *spec.shape[1:]))


class CoreMLBackend(Backend):
    """Runs ML programs with Core ML on macOS, and with the numpy evaluator everywhere else.

    Devices on macOS: ``all`` (the default), ``cpu``, ``cpu_and_gpu``, ``cpu_and_ne`` and
    ``evaluator``; elsewhere only ``evaluator``. The number of threads is the system's, or that of
    numpy's BLAS, which only the environment can set.
    """

    name = "coreml"
    graph_format = "coreml"
    declared_sizes_only: ClassVar[bool] = True
    title: ClassVar[str] = "Core ML"
    rank: ClassVar[int] = 20
    packages: ClassVar[tuple[str, ...]] = ("coremltools",)
    whole_stage: ClassVar[str] = ""

    def devices(self) -> tuple[str, ...]:
        """Kinds of processors that Core ML may use, and the evaluator."""
        folder = _coremltools()
        runtime = folder is not None and _runtime(folder)
        return (*(name for name in _UNITS if name and runtime), _EVALUATOR_DEVICE)

    def inner(self, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
        """Every tensor of a program, evaluated in numpy."""
        from scaleport.runtimes import coreml_inside

        return coreml_inside.inner(path, feeds)

    def operations(self, path: Path, graph: Graph) -> Operations:
        """Operations of a program by whether the evaluator has them."""
        from scaleport.runtimes import coreml_inside

        return coreml_inside.operations(path)

    def availability(self) -> Availability:
        """Say what programs run on here: Core ML itself, or the evaluator."""
        folder = _coremltools()
        if folder is None:
            return Availability(False, "coremltools is not installed", extra="coreml")
        version = importlib.metadata.version("coremltools")
        runtime = _runtime(folder)
        device = runtime or EVALUATOR
        return Availability(True, device=device, version=version, emulated=not runtime)

    def load(self, graph: GraphFile, options: SessionOptions) -> CoreMLSession:
        """Load a program.

        Raises:
            BackendError: if coremltools is not installed, or Core ML refuses the program.
            UsageError: if the options ask for a device or precision that does not exist here.
            ArtifactError: if the package is damaged.
            UnsupportedOpError: if the evaluator does not know an operation.
        """
        folder = _coremltools()
        if folder is None:
            raise BackendError("coremltools is not installed: pip install 'scaleport[coreml]'")
        if options.inference_precision not in ("", "fp32"):
            raise UsageError(
                "coreml runs a graph in the precision it is written in; export another precision "
                f"instead of asking for {options.inference_precision!r}"
            )
        runtime = _runtime(folder)
        devices = [*_UNITS, _EVALUATOR_DEVICE] if runtime else ["", _EVALUATOR_DEVICE]
        if options.device not in devices:
            known = ", ".join(device for device in devices if device)
            raise UsageError(f"coreml has no device {options.device!r} here, only: {known}")
        evaluator = Evaluator(read_program(graph.path))
        if not runtime or options.device == _EVALUATOR_DEVICE:
            return CoreMLSession(evaluator, evaluator, EVALUATOR)
        units = _UNITS[options.device]
        return CoreMLSession(_load_model(graph.path, units), evaluator, f"{runtime}, {units}")


def _coremltools() -> Path | None:
    """Directory of the package, found without importing it: the import brings torch along."""
    spec = None
    with contextlib.suppress(ImportError, ValueError):  # an import hook may refuse to look
        spec = importlib.util.find_spec("coremltools")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _runtime(folder: Path) -> str:
    """Name of the system's Core ML, empty where there is none or coremltools cannot reach it."""
    if platform.system() != "Darwin" or not any(folder.glob("libcoremlpython*")):
        return ""
    return f"Core ML, macOS {platform.mac_ver()[0]}"


def _load_model(path: Path, units: str) -> Any:
    try:
        import coremltools

        return coremltools.models.MLModel(
            str(path), compute_units=getattr(coremltools.ComputeUnit, units)
        )
    except Exception as error:
        raise BackendError(f"Core ML refuses {path.name}: {first_line(error)}") from error
