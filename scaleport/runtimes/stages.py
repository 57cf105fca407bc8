"""The graphs of one model on one backend, loaded when first needed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from scaleport.bundle.manifest import Graph, Manifest
from scaleport.errors import (
    ArtifactError,
    BackendError,
    NotFiniteError,
    ScaleportError,
    one_line,
)
from scaleport.grid import Grid, subpixel_centres
from scaleport.runtimes.arrays import HOST, Arrays, arrays_of
from scaleport.runtimes.base import (
    Availability,
    Backend,
    Feeds,
    GraphSource,
    Outputs,
    Session,
    SessionOptions,
    Value,
    Values,
    Work,
    host,
    precision_text,
)
from scaleport.tensor import BATCH, TensorSpec

_CONSTANTS_KEPT = 32

_LEFT_BEHIND: list[dict[str, Session]] = []
"""Sessions of the process that this one was forked from."""


class Stages:
    """Sessions and per-scale constants of one model. Many threads may use one object.

    Args:
        source: where the graphs come from.
        backend: what runs the graphs.
        found: that backend's availability, for reports.
        precision: ``fp32``, ``fp16`` or ``int8``.
        options: passed to the backend for every graph.
        shared: gives the session of a stage that others use too, or None for a stage that is to be
            loaded here. Whoever shares a session closes it.
    """

    def __init__(
        self,
        source: GraphSource,
        backend: Backend,
        found: Availability,
        precision: str,
        options: SessionOptions,
        shared: Callable[[str], Session | None] = lambda _: None,
    ) -> None:
        self.source = source
        self.backend = backend
        self.found = found
        self.precision = precision
        self.options = options
        self._declared = source.graphs(backend, precision)
        self._shared = shared
        self._sessions: dict[str, Session] = {}
        self._constants: OrderedDict[tuple[bytes, ...], Values] = OrderedDict()
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        words = precision_text(self.precision, self.options.inference_precision)
        state = ", closed" if self._closed else ""
        return f"<{self.manifest.name} on {self.backend.name}, {words}{state}>"

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        return self.source.manifest

    @property
    def work(self) -> Work:
        """How much of a picture the backend is best given at once."""
        return self.backend.work(self.options)

    @property
    def arrays(self) -> Arrays:
        """Arithmetic where the pixels are; loads the first graph to know it."""
        return arrays_of(self.session("encode"))

    @property
    def declared(self) -> Mapping[str, Graph]:
        """Inputs and outputs of the stages there are, by stage."""
        return self._declared

    def has(self, stage: str) -> bool:
        """Whether the model has a graph of this stage in this format and precision."""
        return stage in self._declared

    def inputs(self, stage: str) -> tuple[str, ...]:
        """Names of the declared inputs of a stage that is there."""
        return names(self._declared[stage].inputs)

    def of(self, source: GraphSource) -> Stages:
        """The same backend, precision and options on other graphs, in stages of the same class."""
        return type(self)(source, self.backend, self.found, self.precision, self.options)

    def session(self, stage: str) -> Session:
        """The session of a stage.

        Raises:
            UsageError: if there is no such graph.
            ArtifactError: if the graph's file is damaged.
            BackendError: if the backend refuses it, or these stages are closed.
        """
        self._leave_parent()
        with self._lock:
            if self._closed:
                raise BackendError("the upscaler is closed; load the bundle again")
            if stage not in self._sessions:
                shared = self._shared(stage)
                if shared is not None:
                    return shared
                file = self.source.file(self.backend, stage, self.precision)
                self._sessions[stage] = self.backend.load(file, self.options)
            return self._sessions[stage]

    def _leave_parent(self) -> None:
        """Begin anew in a forked process: the threads of the parent's sessions are not there."""
        if self._process == os.getpid():
            return
        # Another thread of the parent may have held the lock. The sessions are kept and never
        # touched, because releasing them would wait for their threads.
        _LEFT_BEHIND.append(self._sessions)
        self._lock = threading.RLock()
        self._sessions, self._constants = {}, OrderedDict()
        self._process = os.getpid()

    def close(self) -> None:
        """Release all sessions; a second call does nothing."""
        self._leave_parent()
        with self._lock:
            sessions, self._sessions, self._closed = self._sessions, {}, True
            self._constants.clear()
        for session in sessions.values():
            session.close()

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, stage: str, feeds: Feeds) -> Outputs:
        """Run a stage, and check that it returned what the manifest declares, and numbers.

        Returns:
            The outputs in host memory.

        Raises:
            BackendError: if the backend fails in any way, an output is missing or of another shape,
                or one holds NaN or infinity.
        """
        outputs = {name: host(value) for name, value in self.call(stage, feeds).items()}
        for name, value in outputs.items():
            if not HOST.finite(value):
                raise self.not_finite(stage, name, feeds)
        return outputs

    def not_finite(self, stage: str, name: str, feeds: Feeds) -> NotFiniteError:
        """The error of an output that is no number."""
        return NotFiniteError(
            f"{self.backend.name} returned NaN or infinity in {name!r} of stage {stage!r} "
            f"({self.precision}); {_advice(self.precision)}",
            stage,
            {name: host(value) for name, value in feeds.items()},
        )

    def call(self, stage: str, feeds: Feeds, keep: Collection[str] = ()) -> Values:
        """Run a stage, and check that it returned what the manifest declares.

        Batches that the backend does not take are split.

        Args:
            stage: name of the stage.
            feeds: its inputs.
            keep: names of the outputs that may stay where they were computed.

        Raises:
            BackendError: if the backend fails in any way, or an output is missing or of another
                shape.
        """
        session = self.session(stage)
        graph = self._declared[stage]
        most = getattr(session, "max_batch", 0) or self.backend.max_batch
        try:
            outputs = split_run(session, graph, feeds, keep, most)
        except (ScaleportError, MemoryError):
            raise
        except Exception as error:  # a backend of another package can raise anything
            raise BackendError(
                f"{self.backend.name} failed in stage {stage!r} ({self.precision}): "
                f"{one_line(f'{type(error).__name__}: {error}')}"
            ) from error
        for declared in graph.outputs:
            self._check(stage, declared, outputs.get(declared.name))
        return outputs

    def _check(self, stage: str, declared: TensorSpec, value: Any) -> None:
        there = all(hasattr(value, name) for name in ("shape", "dtype", "nbytes"))
        fits = (
            there
            and value.dtype.kind == "f"
            and len(value.shape) == len(declared.shape)
            and all(
                d in (n, 1) or isinstance(d, str)
                for d, n in zip(declared.shape, value.shape, strict=True)
            )
        )
        if not fits:
            got = f"{value.dtype} {list(value.shape)}" if there else "none"
            want = ", ".join(map(str, declared.shape))
            raise BackendError(
                f"{self.backend.name} returned {got} as {declared.name!r} of stage {stage!r} "
                f"({self.precision}) instead of numbers [{want}]; the backend is at fault"
            )

    def constants(self, scale: int) -> Values:
        """What ``prepare`` of a lattice model makes of an integer scale: inputs of ``render``."""
        return self._prepared(
            {
                "subpixel": subpixel_centres(scale),
                "scale": np.array([scale, scale], dtype=np.float32),
            }
        )

    def modulation(self, grid: Grid) -> Values:
        """What ``prepare`` of a query model makes of an output size: inputs of ``encode``.

        Nothing if the features depend on the image alone.
        """
        graph = self._declared.get("prepare")
        if graph is None:
            return {}
        known: dict[str, Value] = {"scale": grid.scale, "cell": grid.cell}
        unknown = set(names(graph.inputs)) - set(known)
        if unknown:
            raise ArtifactError(f"stage 'prepare' asks for {unknown.pop()!r}, which nothing makes")
        return self._prepared({name: known[name] for name in names(graph.inputs)})

    def _prepared(self, feeds: dict[str, Any]) -> Values:
        """Outputs of ``prepare``, computed once per set of inputs; they stay on the device."""
        key = tuple(value.tobytes() for value in feeds.values())
        self._leave_parent()
        with self._lock:  # so that many threads at one scale compute them once
            self.session("prepare")
            if key in self._constants:
                self._constants.move_to_end(key)
                return self._constants[key]
            made = self.call("prepare", feeds, keep=names(self._declared["prepare"].outputs))
            self._constants[key] = made
            if len(self._constants) > _CONSTANTS_KEPT:
                self._constants.popitem(last=False)
            return made

    def encode(self, image: Value, modulation: Feeds | None = None, check: bool = True) -> Values:
        """Features of float32[N, 3, H, W] in [0, 1], for what :meth:`modulation` gave.

        With ``check`` they come to host memory and must be numbers; without, they stay where they
        were computed.
        """
        feeds = {"image": image, **(modulation or {})}
        if check:
            return {**self.run("encode", feeds)}
        return self.call("encode", feeds, keep=names(self._declared["encode"].outputs))

    def render_lattice(self, features: Feeds, scale: int, check: bool = True) -> Value:
        """Pixels float32[N, 3, s * H, s * W] at an integer scale.

        That is a native scale of a lattice model, or one that a query model has a graph for.
        """
        bound = f"render_x{scale}"
        if self.has(bound):
            return self._upscaled(bound, features, check)
        return self._upscaled("render", {**features, **self.constants(scale)}, check)

    def render_query(self, features: Feeds, grid: Feeds, check: bool = True) -> Value:
        """Pixels float32[N, 3, rows, columns] of a grid's feeds, from a query model."""
        graph = self._declared.get("render")
        if graph is not None and "scale" not in names(graph.inputs):
            # Not every decoder depends on the scale itself.
            grid = {name: value for name, value in grid.items() if name != "scale"}
        return self._upscaled("render", {**features, **grid}, check)

    def _upscaled(self, stage: str, feeds: Feeds, check: bool) -> Value:
        if check:
            return self.run(stage, feeds)["upscaled"]
        return self.call(stage, feeds, keep=("upscaled",))["upscaled"]


def _advice(precision: str) -> str:
    """What to do about numbers that overflowed; images that hold NaN never come here."""
    if precision != "fp32":
        return "try precision fp32"
    return "try scaleport bisect, which names the layer"


def names(tensors: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Names of declared tensors."""
    return tuple(tensor.name for tensor in tensors)


def split_run(
    session: Session, graph: Graph, feeds: Feeds, keep: Collection[str], most: int
) -> Values:
    """Run a session, in several calls if it takes fewer images than it is fed.

    Args:
        session: the session.
        graph: its declared inputs and outputs, which say what has a batch.
        feeds: inputs of any batch.
        keep: outputs that may stay where they were computed.
        most: most images of one call; 0 for no limit.

    Raises:
        UsageError, BackendError, OutOfMemoryError: as :meth:`Session.run` does.
    """
    batched = [t.name for t in graph.inputs if _has_batch(t) and t.name in feeds]
    count = max((feeds[name].shape[0] for name in batched), default=1)
    if any(tensor.shape[0] == 1 for tensor in graph.inputs if _has_batch(tensor)):
        most = 1  # a graph of fixed shape
    if not most or count <= most:
        return session.run(feeds, keep)
    arrays = arrays_of(session)
    parts = [
        session.run(_images(feeds, batched, slice(start, start + most), count, arrays), keep)
        for start in range(0, count, most)
    ]
    return _joined(parts, graph, keep, arrays)


def _joined(parts: Sequence[Values], graph: Graph, keep: Collection[str], arrays: Arrays) -> Values:
    """The outputs of several calls as those of one."""
    joined = {t.name for t in graph.outputs if _has_batch(t)}
    whole = dict(parts[0])
    for name in joined.intersection(whole):
        place = arrays if name in keep else HOST
        natives = [place.unwrap(part[name]) for part in parts]
        whole[name] = place.wrap(place.concatenated(natives, 0))
    return whole


def _images(
    feeds: Feeds, batched: Collection[str], some: slice, count: int, arrays: Arrays
) -> Feeds:
    """What some images of a batch of ``count`` are fed."""
    return {
        name: arrays.wrap(arrays.crop(arrays.unwrap(value), (some,)))
        if name in batched and value.shape[0] == count
        else value
        for name, value in feeds.items()
    }


def _has_batch(tensor: TensorSpec) -> bool:
    """Whether the first dimension is the batch: by its name, or in a graph of fixed shape as 1."""
    shape = tensor.shape
    return bool(shape) and (shape[0] == BATCH or (shape[0] == 1 and len(shape) > 2))
