"""Scaleport: arbitrary-scale super-resolution, one checkpoint on every runtime.

::

    import scaleport

    up = scaleport.load("photo.bundle")  # or backend="openvino", "tensorrt", ...
    hr = up(image, scale=2.7)

Nothing heavy is imported before it is used: no torch, no backend.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scaleport.errors import ScaleportError
    from scaleport.grid import Grid
    from scaleport.runtimes.upscaler import Upscaler, load
    from scaleport.runtimes.view import TilePolicy

__all__ = ["Grid", "ScaleportError", "TilePolicy", "Upscaler", "__version__", "load"]

_HOMES = {
    "Grid": "scaleport.grid",
    "ScaleportError": "scaleport.errors",
    "TilePolicy": "scaleport.runtimes.view",
    "Upscaler": "scaleport.runtimes.upscaler",
    "load": "scaleport.runtimes.upscaler",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scaleport' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
