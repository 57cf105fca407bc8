"""What every backend looks like from outside: availability, load, run, and what it is fed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np

from scaleport.aliases import Array as Array
from scaleport.errors import UsageError
from scaleport.tensor import TensorSpec

if TYPE_CHECKING:
    from scaleport.bundle.manifest import Graph, Manifest
    from scaleport.runtimes.inside import Inner, Operations


INFERENCE_PRECISIONS: Final = ("fp32", "tf32", "bf16", "fp16")
"""Arithmetic that a caller can ask for; ``fp32`` is IEEE float32, never less."""


@runtime_checkable
class Tensor(Protocol):
    """A value that stays where a session computed it, for other sessions of the same backend.

    In host memory a plain numpy array does the same, so backends that compute there need no class
    of their own. A tensor on a device also has ``__dlpack__`` and ``__dlpack_device__`` where its
    library has them.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        ...

    @property
    def device(self) -> str:
        """Where the elements lie: ``cpu``, ``cuda:0``, ..."""
        ...

    def numpy(self) -> Array:
        """The elements in host memory; waits for the device and copies where it must."""
        ...


Value: TypeAlias = Array | Tensor
Feeds = Mapping[str, Value]
Outputs = dict[str, Array]
Values = dict[str, Value]


def precision_text(precision: str, inference_precision: str = "") -> str:
    """Precision of graphs, and of inference where that is another one: ``fp32 in bf16``."""
    if inference_precision in ("", precision):
        return precision
    return f"{precision} in {inference_precision}"


def host(value: Value) -> Array:
    """A value in host memory."""
    return value if isinstance(value, np.ndarray) else value.numpy()


def hosted(values: Feeds) -> Outputs:
    """Values in host memory."""
    return {name: host(value) for name, value in values.items()}


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run graphs on this machine.

    ``usable`` is about executing graphs. ``can_build`` is set if the backend cannot execute
    here but can still prepare its artifacts (TensorRT without a GPU).
    """

    usable: bool
    reason: str = ""
    """Why not, in one sentence; empty when usable."""
    extra: str = ""
    """The pip extra to install, when a package is what is missing."""
    device: str = ""
    """What graphs really run on, e.g. ``CPUExecutionProvider``."""
    version: str = ""
    can_build: bool = False
    emulated: bool = False
    """Whether graphs are only evaluated here, and not run on what they were made for."""


@dataclass(frozen=True)
class GraphFile:
    """One graph of a bundle, as a backend needs it to load it."""

    path: Path
    stage: str
    """``prepare``, ``encode``, ``render``, ``render_x2`` .. , ``whole``."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class SessionOptions:
    """Choices that every backend understands.

    With ``threads`` 0 the backend chooses the number. ``device`` is the backend's own name of a
    device, empty for its default. ``inference_precision`` is one of :data:`INFERENCE_PRECISIONS`
    and sets the precision of the arithmetic; empty uses that of the graph, with float32 in IEEE
    arithmetic. A backend refuses a precision that it cannot compute in.
    """

    threads: int = 0
    device: str = ""
    inference_precision: str = ""
    cache_dir: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """How much of a picture a session is best given at once.

    Attributes:
        tile: LR rows and columns that one tile owns; 0 never tiles.
        map_bytes: bytes of a query decoder's widest map in one call, which decides how many
            pixels a call makes; 0 for no limit.
        fewest_pixels: output pixels below which what a call costs by itself would show.
        equal_tiles: whether tiles of equal shape are worth more than tiles without waste, because
            the library prepares itself anew for every shape.
    """

    tile: int = 256
    map_bytes: int = 4 << 20
    fewest_pixels: int = 2048
    equal_tiles: bool = False


@runtime_checkable
class Session(Protocol):
    """A loaded graph. Many threads may call one session at the same time."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` must be fed."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` returns."""
        ...

    @property
    def device(self) -> str:
        """The provider and device this graph really runs on."""
        ...

    def run(self, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run the graph once.

        Args:
            feeds: arrays in host memory, or values that a session of this backend has kept.
            keep: names of outputs that may stay where they were computed. All others are arrays
                in host memory.

        Raises:
            UsageError: if a feed is missing, unknown or of the wrong type or rank.
            OutOfMemoryError: if the backend ran out of memory.
            BackendError: if the backend failed otherwise, or the session is closed.
        """
        ...

    def close(self) -> None:
        """Release what the session holds; a second call does nothing."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One way to run graphs. Other packages register theirs as ``scaleport.backends``.

    Everything that the rest of the program asks about a backend is here. Derive a class of your
    own from this one: ``name``, ``graph_format``, :meth:`availability` and :meth:`load` are enough,
    the rest has a default.
    """

    name: str
    graph_format: str
    """The key of the manifest's ``graphs`` this backend loads: ``onnx``, ``openvino``, ..."""

    title: ClassVar[str] = ""
    """What tables call it; empty for the name."""
    rank: ClassVar[int] = 100
    """Place among Scaleport's own for ``backend="auto"``, the lowest first."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions belong to a figure that it measured."""

    runs_checkpoint: ClassVar[bool] = False
    """Whether it runs the bundle's checkpoint, in the stages that ``source_format`` declares."""
    source_format: ClassVar[str] = ""
    """Format of the graphs that its own are made from on each machine; empty: they are its own."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    """Precisions of graphs that it runs."""
    whole_stage: ClassVar[str] = "whole"
    """Stage of the whole graph that it takes: ``whole``, which is fed a scale, ``whole_size``,
    which is fed a size, or empty for none."""
    max_batch: ClassVar[int] = 0
    """Most images that one call takes; 0 for no limit. Larger batches are split."""
    declared_sizes_only: ClassVar[bool] = False
    """Whether graphs take only the sizes of the manifest's ``height`` and ``width``."""
    judges_int8: ClassVar[int] = 0
    """Place among the backends that calibration measures int8 graphs on; 0 for none of them."""

    @abstractmethod
    def availability(self) -> Availability:
        """Say whether graphs can run here. Never raises, never installs anything."""
        ...

    @abstractmethod
    def load(self, graph: GraphFile, options: SessionOptions) -> Session:
        """Load a graph.

        Raises:
            BackendError: if the backend is not usable here or refuses the graph.
        """
        ...

    def glance(self) -> Availability:
        """:meth:`availability` without what takes long, e.g. importing a large library."""
        return self.availability()

    def devices(self) -> tuple[str, ...]:
        """Names that ``SessionOptions.device`` may have here; none if it takes none."""
        return ()

    def inference_precisions(self, device: str = "") -> tuple[str, ...]:
        """What of :data:`INFERENCE_PRECISIONS` can be asked for here, on a device."""
        return ("fp32",)

    def work(self, options: SessionOptions) -> Work:
        """How much its sessions are best given at once."""
        return Work()

    def inner(self, path: Path, feeds: Mapping[str, Array]) -> list[Inner]:
        """Run a graph of :func:`source_format` once and return every tensor, not the outputs alone.

        A graph whose tensors are all outputs cannot be fused: what only goes wrong in a fused
        operation does not show here.

        Raises:
            UsageError: if this backend shows no tensors, which is the default.
            BackendError: if a library is missing, or it refuses the graph.
        """
        raise UsageError(f"backend {self.name!r} cannot show the tensors inside a graph")

    def operations(self, path: Path, graph: Graph) -> Operations:
        """Count the operations of a graph of :func:`source_format`, by what runs them here.

        Raises:
            UsageError: if this backend does not count them, which is the default.
            ImportError: if its library is not installed.
            BackendError: if it refuses the graph.
        """
        raise UsageError(f"backend {self.name!r} does not tell which operations it runs")


def offers(backend: Backend, method: str) -> bool:
    """Whether a backend has a method of its own for what not every backend can do."""
    return getattr(type(backend), method) is not getattr(Backend, method)


def title_of(backend: Backend) -> str:
    """What tables call a backend."""
    return backend.title or backend.name


def source_format(backend: Backend) -> str:
    """Format of the graphs that a backend's results can be traced back to on every machine.

    Engines are made from ONNX graphs, and hold none of their tensors any more.
    """
    return backend.source_format or backend.graph_format


def stored_format(backend: Backend) -> str:
    """Format of the graphs in a bundle that a backend's results are about.

    PyTorch has no files of its own: it runs the checkpoint, in the stages of the ONNX graphs.
    """
    return source_format(backend) if backend.runs_checkpoint else backend.graph_format


class GraphSource(Protocol):
    """The graphs of one model."""

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        ...

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Declared inputs and outputs of the stages that a backend finds here, by stage."""
        ...

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """What a backend loads for a stage.

        Raises:
            UsageError: if there is no such graph.
            ArtifactError: if its file is damaged.
        """
        ...

    def checkpoint(self) -> Path:
        """The verified PyTorch checkpoint of the model.

        Raises:
            ArtifactError: if there is none, or it is damaged.
        """
        ...


def checked(feeds: Feeds, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Feeds as contiguous arrays in host memory, complete and of the right type and shape.

    Raises:
        UsageError: if one is missing, unknown, or of the wrong type, rank or fixed dimension.
    """
    values = checked_values(feeds, specs)
    return {name: np.ascontiguousarray(host(value)) for name, value in values.items()}


def checked_values(feeds: Feeds, specs: Sequence[TensorSpec]) -> dict[str, Value]:
    """Feeds where they are, complete and of the right type and shape, in the order of ``specs``.

    Raises:
        UsageError: if one is missing, unknown, or of the wrong type, rank or fixed dimension.
    """
    unknown = sorted(set(feeds) - {spec.name for spec in specs})
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"unknown input {', '.join(unknown)}; this graph takes {names}")
    result: dict[str, Value] = {}
    for spec in specs:
        if spec.name not in feeds:
            raise UsageError(f"input {spec.name!r} is missing")
        value = feeds[spec.name]
        if not hasattr(value, "dtype"):
            value = np.asarray(value)
        if value.dtype != spec.dtype:
            raise UsageError(f"input {spec.name!r} must be {spec.dtype}, got {value.dtype}")
        shape = tuple(value.shape)
        fits = len(shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have
            for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            want = "x".join(str(d) for d in spec.shape)
            have = "x".join(str(d) for d in shape) or "a number"
            raise UsageError(f"input {spec.name!r} must have shape {want}, got {have}")
        result[spec.name] = value
    return result
