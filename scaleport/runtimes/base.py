"""What every backend looks like from outside: availability, load, run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
Outputs = dict[str, Array]


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
    device, empty for its default. ``inference_precision`` asks the backend to compute in a lower
    precision than the graph is written in (OpenVINO: ``bf16`` or ``fp16``); backends that cannot
    refuse it.
    """

    threads: int = 0
    device: str = ""
    inference_precision: str = ""
    cache_dir: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Session(Protocol):
    """A loaded graph."""

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

    def run(self, feeds: Feeds) -> Outputs:
        """Run the graph once.

        Raises:
            UsageError: if a feed is missing, unknown or of the wrong type or rank.
            OutOfMemoryError: if the backend ran out of memory.
            BackendError: if the backend failed otherwise.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """One way to run graphs. Found through the entry point group ``scaleport.backends``."""

    name: str
    graph_format: str
    """The key of the manifest's ``graphs`` this backend loads: ``onnx``, ``openvino``, ..."""

    def availability(self) -> Availability:
        """Say whether graphs can run here. Never raises, never installs anything."""
        ...

    def load(self, graph: GraphFile, options: SessionOptions) -> Session:
        """Load a graph.

        Raises:
            BackendError: if the backend is not usable here or refuses the graph.
        """
        ...


def stored_format(backend: Backend) -> str:
    """Format of the graphs in a bundle that a backend's results are about.

    PyTorch has no files of its own: it runs the checkpoint, in the stages of the ONNX graphs.
    """
    return "onnx" if backend.graph_format == "torch" else backend.graph_format
