"""What is asked of every file of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import msgspec

from scaleport import __version__
from scaleport.bundle.manifest import encode
from scaleport.errors import ScaleError
from scaleport.grid import parse_scale
from scaleport.imaging.writing import SaveOptions, VideoOptions
from scaleport.runtimes.scales import Fit
from scaleport.runtimes.upscaler import Upscaler


@dataclass(frozen=True)
class Request:
    """Scale or size, and how outputs are written.

    Attributes:
        scale: (vertical, horizontal), or None if ``size`` is given.
        size: output size (height, width) in pixels, or limits that a picture of its own shape is
            fitted into; None if ``scale`` is given.
        bits: 8, 16 or 32 (float) bits per channel; 0 keeps those of each source.
        options: how image files are written.
        video: how videos are written.
    """

    scale: tuple[float, float] | None = None
    size: tuple[int, int] | Fit | None = None
    bits: int = 0
    options: SaveOptions = field(default_factory=SaveOptions)
    video: VideoOptions = field(default_factory=VideoOptions)

    @classmethod
    def of(
        cls,
        scale: float | Iterable[float] | None = None,
        size: tuple[int, int] | Fit | None = None,
        bits: int = 0,
        options: SaveOptions | None = None,
        video: VideoOptions | None = None,
    ) -> Request:
        """A request of one scale for both directions, a pair, or a size.

        Raises:
            ScaleError: if not exactly one of ``scale`` and ``size`` is given, or it is no scale.
        """
        if (scale is None) == (size is None):
            raise ScaleError(
                "give either a scale (-s 2.7) or a size (--size or --fit 1920x1080, --width 1920)"
            )
        pair = None if scale is None else parse_scale(scale)
        return cls(pair, size, bits, options or SaveOptions(), video or VideoOptions())

    @property
    def tag(self) -> str:
        """What is appended to the names of outputs, e.g. ``_x2.7``."""
        if isinstance(self.size, Fit):
            return _tag_of(self.size)
        if self.size is not None:
            return f"_{self.size[1]}x{self.size[0]}"
        assert self.scale is not None
        shown = dict.fromkeys(f"x{value:g}" for value in self.scale)
        return "_" + "".join(shown)


def _tag_of(fit: Fit) -> str:
    if fit.width and fit.height:
        return f"_fit{fit.width}x{fit.height}" + (f"_longest{fit.longest}" if fit.longest else "")
    sides = {"w": fit.width, "h": fit.height, "longest": fit.longest}
    return "".join(f"_{name}{side}" for name, side in sides.items() if side)


def settings_digest(upscaler: Upscaler, request: Request) -> str:
    """SHA-256 of everything but the source that output bytes depend on.

    The model with its graphs, the backend and its version, precision, device and tiles, the
    request, and the version of Scaleport. The number of threads is not part of it.
    """
    stages = upscaler.stages
    # Judging a bundle anew writes other parity results into it and changes no pixel.
    manifest = msgspec.structs.replace(upscaler.manifest, parity=None)
    options = stages.options
    said = {
        "scaleport": __version__,
        "bundle": hashlib.sha256(encode(manifest)).hexdigest(),
        "backend": [upscaler.backend, stages.found.version, upscaler.precision],
        "device": [options.device, options.inference_precision, repr(dict(options.extra))],
        "policy": asdict(upscaler.policy),
        "request": asdict(request),
    }
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()
