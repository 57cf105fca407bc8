"""The graphs of one model on one backend, loaded when first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from scaleport.bundle.manifest import Graph, Manifest, Tensor
from scaleport.errors import (
    ArtifactError,
    BackendError,
    NotFiniteError,
    ScaleportError,
    one_line,
)
from scaleport.grid import Grid, subpixel_centres
from scaleport.runtimes.base import (
    Array,
    Availability,
    Backend,
    Feeds,
    Outputs,
    Session,
    SessionOptions,
)
from scaleport.runtimes.sources import GraphSource, names

_CONSTANTS_KEPT = 32


class Stages:
    """Sessions and per-scale constants of one model.

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
        self._shared = shared
        self._sessions: dict[str, Session] = {}
        self._declared: dict[str, Graph] = {}
        self._constants: OrderedDict[tuple[bytes, ...], Outputs] = OrderedDict()

    def _graphs(self) -> dict[str, Graph]:
        if not self._declared:  # once: a decoder asks for every piece
            self._declared = self.source.graphs(self.backend, self.precision)
        return self._declared

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        return self.source.manifest

    def has(self, stage: str) -> bool:
        """Whether there is a graph of this stage for this backend and precision."""
        return stage in self._graphs()

    @property
    def declared(self) -> Mapping[str, Graph]:
        """Inputs and outputs of the stages there are, by stage."""
        return self._graphs()

    def of(self, source: GraphSource) -> Stages:
        """The same backend, precision and options on other graphs, in stages of the same class."""
        return type(self)(source, self.backend, self.found, self.precision, self.options)

    def session(self, stage: str) -> Session:
        """The session of a stage.

        Raises:
            UsageError: if there is no such graph.
            ArtifactError: if the graph's file is damaged.
            BackendError: if the backend refuses it.
        """
        if stage not in self._sessions:
            shared = self._shared(stage)
            if shared is not None:
                return shared
            file = self.source.file(self.backend, stage, self.precision)
            self._sessions[stage] = self.backend.load(file, self.options)
        return self._sessions[stage]

    def run(self, stage: str, feeds: Feeds) -> Outputs:
        """Run a stage and check that it returned what the manifest declares, and numbers.

        Raises:
            BackendError: if the backend fails in any way, an output is missing or of another shape,
                or one holds NaN or infinity.
        """
        session = self.session(stage)
        try:
            outputs = session.run(feeds)
        except (ScaleportError, MemoryError):
            raise
        except Exception as error:  # a backend of another package can raise anything
            raise BackendError(
                f"{self.backend.name} failed in stage {stage!r} ({self.precision}): "
                f"{one_line(f'{type(error).__name__}: {error}')}"
            ) from error
        for declared in self._graphs()[stage].outputs:
            self._check(stage, declared, outputs.get(declared.name))
        for name, value in outputs.items():
            # A sum is NaN or infinite if any element is; it needs no mask of the array's size.
            # Only where it overflows in float32 is the slower sum in float64 needed.
            with np.errstate(over="ignore", invalid="ignore"):
                wrong = not np.isfinite(value.sum()) and not np.isfinite(value.sum(dtype=float))
            if wrong:
                raise NotFiniteError(
                    f"{self.backend.name} returned NaN or infinity in {name!r} of stage {stage!r} "
                    f"({self.precision}); try precision fp32",
                    stage,
                    feeds,
                )
        return outputs

    def _check(self, stage: str, declared: Tensor, value: Array | None) -> None:
        fits = (
            isinstance(value, np.ndarray)
            and value.dtype.kind == "f"
            and value.ndim == len(declared.shape)
            and all(
                d in (n, 1) or isinstance(d, str)
                for d, n in zip(declared.shape, value.shape, strict=True)
            )
        )
        if not fits:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else "none"
            want = ", ".join(map(str, declared.shape))
            raise BackendError(
                f"{self.backend.name} returned {got} as {declared.name!r} of stage {stage!r} "
                f"({self.precision}) instead of numbers [{want}]; the backend is at fault"
            )

    def constants(self, scale: int) -> Outputs:
        """What ``prepare`` of a lattice model makes of an integer scale: inputs of ``render``."""
        return self._prepared(
            {
                "subpixel": subpixel_centres(scale),
                "scale": np.array([scale, scale], dtype=np.float32),
            }
        )

    def modulation(self, grid: Grid) -> Outputs:
        """What ``prepare`` of a query model makes of an output size: inputs of ``encode``.

        Nothing if the features depend on the image alone.
        """
        graph = self._graphs().get("prepare")
        if graph is None:
            return {}
        known: dict[str, Array] = {"scale": grid.scale, "cell": grid.cell}
        unknown = set(names(graph.inputs)) - set(known)
        if unknown:
            raise ArtifactError(f"stage 'prepare' asks for {unknown.pop()!r}, which nothing makes")
        return self._prepared({name: known[name] for name in names(graph.inputs)})

    def _prepared(self, feeds: dict[str, Array]) -> Outputs:
        """Outputs of ``prepare``, computed once per set of inputs."""
        key = tuple(value.tobytes() for value in feeds.values())
        if key in self._constants:
            self._constants.move_to_end(key)
            return self._constants[key]
        made = self.run("prepare", feeds)
        self._constants[key] = made
        if len(self._constants) > _CONSTANTS_KEPT:
            self._constants.popitem(last=False)
        return made

    def encode(self, image: Array, modulation: Outputs | None = None) -> Outputs:
        """Features of float32[N, 3, H, W] in [0, 1], for what :meth:`modulation` gave."""
        return self.run("encode", {"image": image, **(modulation or {})})

    def render_lattice(self, features: Outputs, scale: int) -> Array:
        """Pixels float32[N, 3, s * H, s * W] at an integer scale.

        That is a native scale of a lattice model, or one that a query model has a graph for.
        """
        bound = f"render_x{scale}"
        if self.has(bound):
            return self.run(bound, features)["upscaled"]
        return self.run("render", {**features, **self.constants(scale)})["upscaled"]

    def render_query(self, features: Outputs, grid: Feeds) -> Array:
        """Pixels float32[N, 3, rows, columns] of a grid's feeds, from a query model."""
        graph = self._graphs().get("render")
        if graph is not None and "scale" not in names(graph.inputs):
            # Not every decoder depends on the scale itself.
            grid = {name: value for name, value in grid.items() if name != "scale"}
        return self.run("render", {**features, **grid})["upscaled"]
