"""What every backend looks like from outside: availability, load, run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

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


def host(value: Value) -> Array:
    """A value in host memory."""
    return value if isinstance(value, np.ndarray) else value.numpy()


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run graphs on this machine, said honestly.

    ``usable`` is about executing graphs. ``can_build`` is set where the backend cannot execute
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
class TensorSpec:
    """Name, element type and shape of one graph input or output; -1 is a dynamic dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


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

    ``threads`` 0 leaves the number to the backend. ``device`` is the backend's own name of a
    device, empty for its default. ``inference_precision`` is one of :data:`INFERENCE_PRECISIONS`
    and asks the backend to compute in another precision than the graph is written in; empty
    computes as the graph says, float32 in IEEE arithmetic. Backends refuse what they cannot do.
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
    """One way to run graphs. Found through the entry point group ``scaleport.backends``."""

    name: str
    graph_format: str
    """The key of the manifest's ``graphs`` this backend loads: ``onnx``, ``openvino``, ..."""

    max_batch: ClassVar[int] = 0
    """Most images that one call takes; 0 for no limit. Larger batches are split."""

    def availability(self) -> Availability:
        """Say whether graphs can run here. Never raises, never installs anything."""
        ...

    def load(self, graph: GraphFile, options: SessionOptions) -> Session:
        """Load a graph.

        Raises:
            BackendError: if the backend is not usable here or refuses the graph.
        """
        ...

    def work(self, options: SessionOptions) -> Work:
        """How much its sessions are best given at once."""
        return Work()


def stored_format(backend: Backend) -> str:
    """Format of the graphs in a bundle that a backend's results are about.

    PyTorch has no files of its own: it runs the checkpoint, in the stages of the ONNX graphs.
    """
    return "onnx" if backend.graph_format == "torch" else backend.graph_format
