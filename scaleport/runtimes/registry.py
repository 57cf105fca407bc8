"""Finding backends: entry points of the group ``scaleport.backends``."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.metadata import EntryPoint

from scaleport.errors import BackendError, PluginError, UsageError, did_you_mean
from scaleport.plugins import BACKENDS, claims, load, origin, refusal
from scaleport.runtimes.base import Availability, Backend

GROUP = BACKENDS
AUTO_ORDER = ("tensorrt", "coreml", "openvino", "onnxruntime", "torch")
"""Preference of ``backend="auto"``; a backend that only emulates its target comes last."""


@lru_cache(maxsize=1)
def _found() -> dict[str, tuple[EntryPoint, ...]]:
    found = {}
    for name, points in claims(GROUP).items():
        # No other package takes the place of one of ours.
        own = tuple(point for point in points if origin(point) == "scaleport")
        found[name] = own or points
    return found


def backend_names() -> list[str]:
    """Names of all registered backends, installed or not."""
    return sorted(_found())


@cache
def get_backend(name: str) -> Backend:
    """The backend of a name; its library may still be missing.

    Raises:
        UsageError: if no backend is registered under the name.
        BackendError: if a third-party backend cannot be imported.
    """
    points = _found().get(name)
    if points is None:
        known = backend_names()
        raise UsageError(
            f"unknown backend {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
        )
    try:
        backend: Backend = load("backend", points)()
    except PluginError as error:
        raise BackendError(str(error)) from error
    except Exception as error:
        raise BackendError(refusal("backend", points[0], error)) from error
    return backend


def require(name: str) -> tuple[Backend, Availability]:
    """A backend that can run graphs here.

    Raises:
        UsageError: if the name is unknown.
        BackendError: if it cannot run here; the message says what to install.
    """
    backend = get_backend(name)
    found = backend.availability()
    if not found.usable:
        hint = f"; install it with: pip install 'scaleport[{found.extra}]'" if found.extra else ""
        raise BackendError(f"backend {name!r} cannot run here: {found.reason}{hint}")
    return backend, found
