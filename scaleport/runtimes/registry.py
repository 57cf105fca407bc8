"""Finding backends: Scaleport's own by a table, those of other packages by their entry points."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Final

from scaleport.errors import BackendError, PluginError, ScaleportError, UsageError, did_you_mean
from scaleport.plugins import BACKENDS, claims, load, refusal
from scaleport.runtimes.base import INFERENCE_PRECISIONS, Availability, Backend

OWN: Final = {
    "torch": "scaleport.runtimes.torch:TorchBackend",
    "onnxruntime": "scaleport.runtimes.onnxruntime:OnnxRuntimeBackend",
    "openvino": "scaleport.runtimes.openvino:OpenVinoBackend",
    "tensorrt": "scaleport.runtimes.tensorrt:TensorRTBackend",
    "coreml": "scaleport.runtimes.coreml:CoreMLBackend",
    "executorch": "scaleport.runtimes.executorch:ExecuTorchBackend",
}
"""Scaleport's own backends: module and class by name. No other package takes the place of one."""

SERVED: Final = "onnxruntime"
"""What a server runs unless it is told otherwise: the extra ``serve`` installs it."""


def backend_names() -> list[str]:
    """Names of all registered backends, installed or not."""
    return sorted({*OWN, *claims(BACKENDS)})


@cache
def get_backend(name: str) -> Backend:
    """The backend of a name; its library may still be missing.

    Raises:
        UsageError: if no backend is registered under the name.
        BackendError: if a third-party backend cannot be imported.
    """
    if name in OWN:
        module, _, cls = OWN[name].partition(":")
        own: Backend = getattr(import_module(module), cls)()
        return own
    points = claims(BACKENDS).get(name)
    if points is None:
        known = backend_names()
        raise UsageError(
            f"unknown backend {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
        )
    try:
        backend: object = load("backend", points)()
    except PluginError as error:
        raise BackendError(str(error)) from error
    except Exception as error:
        raise BackendError(refusal("backend", points[0], error)) from error
    if not isinstance(backend, Backend):
        why = "it is not derived from scaleport.runtimes.base.Backend"
        raise BackendError(refusal("backend", points[0], why))
    return backend


def availability(name: str, probe: bool = True) -> Availability:
    """Whether a backend can run here; one that cannot be imported is not usable, and says why.

    Args:
        name: of the backend.
        probe: ask its library; False only looks whether that is installed, see
            :meth:`scaleport.runtimes.base.Backend.glance`.
    """
    try:
        backend = get_backend(name)
        return backend.availability() if probe else backend.glance()
    except ScaleportError as error:
        return Availability(False, str(error))


def backends() -> dict[str, Availability]:
    """Every backend by name: whether it can run here, on which device, or the reason.

    They are in the order in which ``backend="auto"`` tries them. Their libraries are imported.
    """
    return {name: availability(name) for name in ranked_names()}


def own_backends() -> list[Backend]:
    """Scaleport's own backends, in the order of preference of ``backend="auto"``."""
    return sorted(map(get_backend, OWN), key=lambda backend: backend.rank)


def preferred_names() -> Iterator[str]:
    """All names in the order of preference: Scaleport's own, then those of other packages.

    Other packages are looked for when our own are used up.
    """
    yield from (backend.name for backend in own_backends())
    yield from (name for name in backend_names() if name not in OWN)


def ranked_names() -> list[str]:
    """The same as a list."""
    return list(preferred_names())


def int8_judges() -> list[Backend]:
    """Backends that calibration measures int8 graphs on, installed or not; the first one leads."""
    judges = [backend for backend in own_backends() if backend.judges_int8]
    return sorted(judges, key=lambda backend: backend.judges_int8)


def refusal_of(backend: Backend, inference_precision: str, device: str = "") -> str:
    """Why a backend cannot compute in an inference precision here; empty if it can.

    Raises:
        UsageError: if there is no such precision.
    """
    if not inference_precision:
        return ""
    if inference_precision not in INFERENCE_PRECISIONS:
        known = ", ".join(INFERENCE_PRECISIONS)
        raise UsageError(f"unknown inference precision {inference_precision!r}; known: {known}")
    there = backend.inference_precisions(device)
    if inference_precision in there:
        return ""
    known = " or ".join(there)
    return f"{backend.name} cannot compute in {inference_precision} here, only in {known}"


def checkpoint_backend() -> Backend:
    """The backend that runs checkpoints."""
    return next(backend for backend in own_backends() if backend.runs_checkpoint)


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
