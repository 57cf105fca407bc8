"""The graphs of one bundle on one backend, loaded when first needed."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from scaleport.bundle.manifest import Graph, Tensor
from scaleport.bundle.reader import Bundle
from scaleport.errors import (
    ArtifactError,
    BackendError,
    NotFiniteError,
    ScaleportError,
    UsageError,
    one_line,
)
from scaleport.grid import Grid, subpixel_centres
from scaleport.runtimes.base import (
    Array,
    Availability,
    Backend,
    Feeds,
    GraphFile,
    Outputs,
    Session,
    SessionOptions,
    stored_format,
)

_CONSTANTS_KEPT = 32


class Stages:
    """Sessions and per-scale constants of one model.

    Args:
        bundle: the opened bundle.
        backend: what runs the graphs.
        found: that backend's availability, for reports.
        precision: ``fp32``, ``fp16`` or ``int8``.
        options: passed to the backend for every graph.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        found: Availability,
        precision: str,
        options: SessionOptions,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.found = found
        self.precision = precision
        self.options = options
        self._sessions: dict[str, Session] = {}
        self._declared: dict[str, Graph] = {}
        self._constants: OrderedDict[tuple[bytes, ...], Outputs] = OrderedDict()

    def _graphs(self) -> dict[str, Graph]:
        if not self._declared:  # once: a decoder asks for every piece
            graphs = self.bundle.graphs(stored_format(self.backend), None, self.precision)
            self._declared = {graph.stage: graph for graph in graphs}
        return self._declared

    def has(self, stage: str) -> bool:
        """Whether the bundle holds a graph of this stage in this format and precision."""
        return stage in self._graphs()

    def session(self, stage: str) -> Session:
        """The session of a stage.

        Raises:
            UsageError: if the bundle holds no such graph.
            ArtifactError: if the graph's file is damaged.
            BackendError: if the backend refuses it.
        """
        if stage not in self._sessions:
            form = self.backend.graph_format
            if form == "torch":
                graph = self._graphs().get(stage)
                if graph is None:
                    raise UsageError(f"this model has no stage {stage!r} in {self.precision}")
                path = self.bundle.checkpoint()
            else:
                graph = self.bundle.graph(form, stage, self.precision)
                path = self.bundle.file(graph.path)
            file = GraphFile(
                path, stage, self.precision, _names(graph.inputs), _names(graph.outputs)
            )
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
                    f"({self.precision}); {_advice(self.precision)}",
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
        unknown = set(_names(graph.inputs)) - set(known)
        if unknown:
            raise ArtifactError(f"stage 'prepare' asks for {unknown.pop()!r}, which nothing makes")
        return self._prepared({name: known[name] for name in _names(graph.inputs)})

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
        if graph is not None and "scale" not in _names(graph.inputs):
            # Not every decoder depends on the scale itself.
            grid = {name: value for name, value in grid.items() if name != "scale"}
        return self.run("render", {**features, **grid})["upscaled"]


def _advice(precision: str) -> str:
    """What to do about numbers that overflowed; images that hold NaN never come here."""
    if precision != "fp32":
        return "try precision fp32"
    return "try scaleport bisect, which names the layer"


def _names(tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors)
