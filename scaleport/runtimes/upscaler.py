"""What applications use: one object that upscales images on any backend."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from scaleport.bundle.manifest import Manifest
from scaleport.bundle.reader import Bundle, open_bundle
from scaleport.errors import BackendError
from scaleport.imaging.given import ImageLike
from scaleport.runtimes.base import Array, SessionOptions, stored_format
from scaleport.runtimes.registry import AUTO_ORDER, backend_names, get_backend, require
from scaleport.runtimes.stages import Stages
from scaleport.runtimes.view import Progress, TilePolicy, View


class Upscaler:
    """A model on a backend. Made by :func:`load`.

    Calling it upscales an image; :meth:`open` encodes an image once for many renderings.
    """

    def __init__(self, stages: Stages, policy: TilePolicy) -> None:
        self._stages = stages
        self.policy = policy

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of the model."""
        return self._stages.bundle.manifest

    @property
    def backend(self) -> str:
        """Name of the backend that runs the graphs."""
        return self._stages.backend.name

    @property
    def precision(self) -> str:
        """Precision of the graphs."""
        return self._stages.precision

    @property
    def device(self) -> str:
        """Provider and device that the graphs really run on; loads the first graph to know it."""
        return self._stages.session("encode").device

    @property
    def stages(self) -> Stages:
        """The graphs themselves, for callers that bring their own tiling."""
        return self._stages

    def __repr__(self) -> str:
        return f"Upscaler({self.manifest.name!r}, backend={self.backend!r}, {self.precision})"

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
            progress: called with (tiles done, tiles in all).

        Returns:
            A numpy array in the layout and type of the pixels of ``image``: integers are rounded
            and clipped; floats are neither, and float32.

        Raises:
            ImageError: if ``image`` is not an image.
            ScaleError: if the scale or size is out of range.
            BackendError: if the backend fails.
        """
        return self.open(image).render(scale, size, progress=progress)


def _choose(bundle: Bundle) -> str:
    """First backend that can run here and has graphs in the bundle."""
    reasons = []
    others = [name for name in backend_names() if name not in AUTO_ORDER]
    for name in (*AUTO_ORDER, *others):
        if name not in backend_names():
            continue
        backend = get_backend(name)
        there = backend.graph_format == "torch" or backend.graph_format in bundle.formats()
        found = backend.availability()
        emulated = name == "coreml" and sys.platform != "darwin"
        if there and found.usable and not emulated:
            return name
        why = "no graphs in this bundle" if not there else found.reason or "only emulated here"
        reasons.append(f"{name}: {why}")
    raise BackendError(f"no backend can run {bundle.path} here ({'; '.join(reasons)})")


def load(
    bundle: Path | str,
    backend: str = "auto",
    precision: str = "",
    threads: int = 0,
    device: str = "",
    policy: TilePolicy | None = None,
    options: SessionOptions | None = None,
    allow: Collection[str] = (),
    verify_key: Path | str | None = None,
) -> Upscaler:
    """Load a bundle for upscaling.

    Args:
        bundle: path of the bundle directory.
        backend: ``torch``, ``onnxruntime``, ``openvino``, ``tensorrt``, ``coreml``, one that a
            plug-in registers, or ``auto``: the first that can run here.
        precision: ``fp32``, ``fp16`` or ``int8``; empty takes the first that the bundle has.
        threads: processor threads; 0 leaves it to the backend.
        device: the backend's own name of a device; empty for its default.
        policy: tile sizes and cache limits.
        options: further options for the backend; ``threads`` and ``device`` are taken from it
            when given.
        allow: what the bundle's graphs may ask for although it runs code from elsewhere:
            ``custom-ops``, operations outside of the standard sets.
        verify_key: public key that the bundle must be signed with; None does not ask for one.

    Raises:
        ArtifactError: if the bundle is damaged, of an unknown version, not signed with the key, or
            asks for what is not allowed.
        BackendError: if the backend is missing or cannot run here.
        UsageError: if there is no such bundle, a name is unknown, or the bundle has no such graphs.
    """
    opened = open_bundle(Path(bundle), allow=allow, verify_key=verify_key)
    chosen, found = require(_choose(opened) if backend == "auto" else backend)
    form = stored_format(chosen)
    there = opened.precisions(form)
    if not precision and there:
        precision = there[0]
    if precision not in there:
        opened.graph(form, "encode", precision or "fp32")  # raises, listing what there is
    options = options or SessionOptions(threads=threads, device=device)
    return Upscaler(Stages(opened, chosen, found, precision, options), policy or TilePolicy())
