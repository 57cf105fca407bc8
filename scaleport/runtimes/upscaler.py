"""What applications use: one object that upscales images on any backend."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scaleport.aliases import Array
from scaleport.bundle.manifest import Graph, Manifest
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import BackendError, UsageError
from scaleport.imaging.given import ImageLike
from scaleport.paths import path_of
from scaleport.progress import Progress
from scaleport.runtimes.base import (
    INFERENCE_PRECISIONS,
    Backend,
    GraphFile,
    SessionOptions,
    stored_format,
)
from scaleport.runtimes.registry import get_backend, preferred_names, ranked_names, require
from scaleport.runtimes.stages import Stages, names
from scaleport.runtimes.view import TilePolicy, View


@dataclass(frozen=True)
class BundleSource:
    """The graphs of an opened bundle."""

    bundle: Bundle

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def graphs(self, backend: Backend, precision: str) -> dict[str, Graph]:
        """Graphs of the bundle in the backend's format, by stage."""
        found = self.bundle.graphs(stored_format(backend), None, precision)
        return {graph.stage: graph for graph in found}

    def file(self, backend: Backend, stage: str, precision: str) -> GraphFile:
        """The verified file of a graph, or the checkpoint for a backend that runs that."""
        form = backend.graph_format
        if form == "torch":
            graph = self.graphs(backend, precision).get(stage)
            if graph is None:
                raise UsageError(f"this model has no stage {stage!r} in {precision}")
            path = self.bundle.checkpoint()
        else:
            graph = self.bundle.graph(form, stage, precision)
            path = self.bundle.file(graph.path)
        return GraphFile(path, stage, precision, names(graph.inputs), names(graph.outputs))

    def checkpoint(self) -> Path:
        """The bundle's checkpoint."""
        return self.bundle.checkpoint()


class Upscaler:
    """A model on a backend. Made by :func:`load`.

    Calling it upscales an image; :meth:`open` encodes an image once for many renderings. Many
    threads may call one upscaler at the same time; a forked process loads its own graphs.
    :meth:`close` releases the graphs, as leaving a ``with`` block does.
    """

    def __init__(self, stages: Stages, policy: TilePolicy) -> None:
        self._stages = stages
        self.policy = policy.resolved(stages.work)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return self._stages.manifest

    @property
    def backend(self) -> str:
        """Name of the backend that runs the graphs."""
        return self._stages.backend.name

    @property
    def precision(self) -> str:
        """Precision of the graphs."""
        return self._stages.precision

    @property
    def inference_precision(self) -> str:
        """Requested precision of the arithmetic; empty for that of the graphs."""
        return self._stages.options.inference_precision

    @property
    def device(self) -> str:
        """Provider and device that run the graphs; loads the first graph to find out."""
        return self._stages.session("encode").device

    @property
    def stages(self) -> Stages:
        """The graphs themselves, for callers with their own tiling."""
        return self._stages

    def close(self) -> None:
        """Release the graphs and what they hold on a device; a second call does nothing."""
        self._stages.close()

    def __enter__(self) -> Upscaler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        scale = self.manifest.scale
        return f"<Upscaler {str(self._stages)[1:-1]}, x{scale.min:g} to x{scale.max:g}>"

    def open(self, image: ImageLike) -> View:
        """Open an image for rendering at any scale and region.

        Args:
            image: uint8, uint16 or float array [H, W], [H, W, C] with 1 (gray), 2 (gray and
                alpha), 3 (RGB) or 4 (RGB and alpha) channels, or [N, 3, H, W]. Floats are in
                [0, 1]. Or a PIL picture, a PyTorch tensor, or the path of a file, see
                :data:`scaleport.imaging.given.ImageLike`; of a file, only the regions that are
                worked on are read.

        Raises:
            ImageError: if it is not such an image; the message says what would make it one.
        """
        return View(self._stages, image, self.policy)

    def __call__(
        self,
        image: ImageLike,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> Array:
        """Upscale an image.

        Args:
            image: see :meth:`open`.
            scale: one number, or (scale_y, scale_x), in the range of the model.
            size: output size (height, width), instead of a scale.
            progress: told of the tiles that are done, see :mod:`scaleport.progress`.

        Returns:
            A numpy array in the layout and type of the pixels of ``image``: integers are rounded
            and clipped; floats are neither, and float32.

        Raises:
            ImageError: if ``image`` is not an image.
            ScaleError: if the scale or size is out of range.
            BackendError: if the backend fails.
        """
        return self.open(image).render(scale, size, progress=progress)


def loaded(upscaler: Upscaler) -> Upscaler:
    """The upscaler, where a program did not give the path of a bundle in its place.

    Raises:
        UsageError: if it did.
    """
    if isinstance(upscaler, (str, os.PathLike)):
        raise UsageError(
            f"the first argument is a loaded model: scaleport.load({os.fspath(upscaler)!r})"
        )
    return upscaler


def _choose(bundle: Bundle) -> str:
    """First backend that can run here and has graphs in the bundle."""
    reasons = []
    for name in preferred_names():
        try:
            backend = get_backend(name)
        except BackendError as error:  # a plug-in that does not load
            reasons.append(f"{name}: {error}")
            continue
        if stored_format(backend) not in bundle.formats():
            reasons.append(f"{name}: no graphs in this bundle")
            continue  # and its library is not imported
        found = backend.availability()
        if found.usable and not found.emulated:
            return name
        reasons.append(f"{name}: {found.reason or 'only emulated here'}")
    raise BackendError(f"no backend can run {bundle.path} here ({'; '.join(reasons)})")


def load(
    bundle: Path | str | Bundle,
    backend: str = "auto",
    precision: str = "",
    threads: int = 0,
    device: str = "",
    policy: TilePolicy | None = None,
    options: SessionOptions | None = None,
    allow: Collection[str] = (),
    verify_key: Path | str | None = None,
    inference_precision: str = "",
) -> Upscaler:
    """Load a bundle for upscaling.

    Args:
        bundle: path of the bundle directory, or a bundle that is open already.
        backend: ``torch``, ``onnxruntime``, ``openvino``, ``tensorrt``, ``coreml``, one that a
            plug-in registers, or ``auto``: the first that can run here.
        precision: ``fp32``, ``fp16`` or ``int8``; empty takes the first that the bundle has.
        threads: processor threads; 0 leaves it to the backend.
        device: the backend's own name of a device; empty for its default.
        policy: tile sizes and cache limits.
        options: further options for the backend.
        allow: operations whose code comes from elsewhere: ``custom-ops`` allows operations outside
            of the standard sets.
        verify_key: public key that the bundle must be signed with; None accepts any bundle.
        inference_precision: precision of the arithmetic: ``fp32``, ``tf32``, ``bf16`` or ``fp16``;
            empty for that of the graphs.

    Raises:
        ArtifactError: if the bundle is damaged, of an unknown version, not signed with the key, or
            needs operations that are not allowed.
        BackendError: if the backend is missing or cannot run here.
        UsageError: if there is no such bundle, a name is unknown, the bundle has no such graphs,
            an argument contradicts ``options``, or ``allow`` or ``verify_key`` is given with a
            bundle that is open already.
    """
    _check_kinds(backend, policy, options, threads)
    options = _combined(options, threads, device, inference_precision)
    if not isinstance(bundle, Bundle):
        bundle = open_bundle(path_of(bundle, "a bundle"), allow=allow, verify_key=verify_key)
    elif allow or verify_key is not None:
        raise UsageError("this bundle is open already: give allow and verify_key to open_bundle")
    chosen, found = require(_choose(bundle) if backend == "auto" else backend)
    form = stored_format(chosen)
    there = bundle.precisions(form)
    if not precision and there:
        precision = there[0]
    if precision not in there:
        bundle.graph(form, "encode", precision or "fp32")  # raises, listing what there is
    stages = Stages(BundleSource(bundle), chosen, found, precision, options)
    return Upscaler(stages, policy or TilePolicy())


def _check_kinds(backend: object, policy: object, options: object, threads: object) -> None:
    """Refuse arguments of another kind here, and not where they are used first.

    Raises:
        UsageError: if there is one.
    """
    if not isinstance(backend, str):
        known = ", ".join(["auto", *ranked_names()])
        raise UsageError(f"backend is a name, not {backend!r}; known: {known}")
    if policy is not None and not isinstance(policy, TilePolicy):
        raise UsageError(
            f"policy is a scaleport.TilePolicy, such as TilePolicy(256), not {policy!r}"
        )
    if options is not None and not isinstance(options, SessionOptions):
        raise UsageError(f"options is a scaleport.runtimes.base.SessionOptions, not {options!r}")
    if not isinstance(threads, int) or threads < 0:
        raise UsageError(f"threads is a whole number of at least 0, not {threads!r}")


def _combined(
    options: SessionOptions | None, threads: int, device: str, inference_precision: str
) -> SessionOptions:
    """Options with what was also given by itself.

    Raises:
        UsageError: if both name a value and not the same, or the precision is unknown.
    """
    options = options or SessionOptions()
    given: dict[str, Any] = {
        "threads": threads,
        "device": device,
        "inference_precision": inference_precision,
    }
    for name, value in given.items():
        inside = getattr(options, name)
        if value and inside and value != inside:
            raise UsageError(
                f"{name}={value!r} contradicts the options, which say {inside!r}; give one of them"
            )
    options = replace(options, **{name: value for name, value in given.items() if value})
    wanted = options.inference_precision
    if wanted and wanted not in INFERENCE_PRECISIONS:
        known = ", ".join(INFERENCE_PRECISIONS)
        raise UsageError(f"unknown inference precision {wanted!r}; known: {known}")
    return options
