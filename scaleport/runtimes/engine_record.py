"""What is known about a TensorRT engine without a GPU: a small JSON file beside it.

Neither TensorRT nor TensorRT-RTX can open an engine where there is no GPU, so the builder writes
down what it was given and what came out: ``encode.engine`` is described by
``encode.engine.json``. The record carries the engine's SHA-256, so that the two cannot part
unnoticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Sha256
from scaleport.errors import ArtifactError, one_line
from scaleport.tensor import UNNAMED, TensorSpec

RECORD_VERSION = 2
"""Version 1 has -1 for a dynamic dimension, and is read too."""
PORTABLE = "8.0+"
"""Compute capability of a TensorRT-RTX engine built for no GPU in particular: Ampere or later."""

Lengths = Annotated[tuple[int, ...], msgspec.Meta(max_length=8)]


class ShapeRange(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Smallest, usual and largest shape of one engine input.

    With ``of="values"`` the three are not shapes but the values of a shape input, such as the
    requested output size.
    """

    min: Lengths
    opt: Lengths
    max: Lengths
    of: Literal["shape", "values"] = "shape"


class EngineInfo(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How an engine was built, from what, and for which GPUs.

    ``precisions`` counts the layer outputs of the network by element type: in a strongly typed
    network these are the types that run. ``engine_layers`` is the number of layers after fusion,
    known only where the building machine has a GPU to open the engine with.
    """

    record_version: int = RECORD_VERSION
    library: str
    """Import name: ``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    compute_capabilities: tuple[str, ...]
    """GPUs it runs on, e.g. ``8.9``; :data:`PORTABLE` for Ampere or later."""
    onnx_sha256: Sha256
    engine_sha256: Sha256
    bytes: int
    build_seconds: float
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: dict[str, ShapeRange]
    network_layers: int
    precisions: dict[str, int]
    engine_layers: int | None = None
    warnings: tuple[str, ...] = ()

    def target(self) -> dict[str, str]:
        """What the engine is bound to, for the manifest's ``Graph.target``."""
        return {
            "library": self.library,
            "version": self.version,
            "compute_capabilities": ", ".join(self.compute_capabilities),
            "onnx_sha256": self.onnx_sha256,
        }


def record_path(engine: Path) -> Path:
    """Where the record of an engine lies: ``NAME.engine.json`` beside ``NAME.engine``."""
    return engine.with_name(engine.name + ".json")


def read_record(engine: Path) -> EngineInfo | None:
    """The record of an engine; None when there is none, as beside an engine of other tools.

    Raises:
        ArtifactError: if the engine is missing, the record is damaged or of an unknown version,
            or it describes another engine.
    """
    if not engine.is_file():
        raise ArtifactError(f"there is no engine at {engine}: build it from its ONNX graph")
    path = record_path(engine)
    if not path.is_file():
        return None
    try:
        info = msgspec.convert(_current(msgspec.json.decode(path.read_bytes())), EngineInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = one_line(error)
        raise ArtifactError(f"{path.name} is damaged, build the engine again: {reason}") from error
    if info.record_version != RECORD_VERSION:
        raise ArtifactError(
            f"{path.name} has version {info.record_version}, this release reads {RECORD_VERSION}: "
            "build the engine again"
        )
    found = sha256_file(engine)
    if (found.bytes, found.sha256) != (info.bytes, info.engine_sha256):
        raise ArtifactError(
            f"{engine.name} is not the engine that {path.name} describes: build it again from "
            "its ONNX graph"
        )
    return info


def _current(stored: Any) -> Any:
    """A record as it was parsed, with the dimensions of version 1 as those of this release."""
    if not isinstance(stored, dict) or stored.get("record_version") != 1:
        return stored
    for key in ("inputs", "outputs"):
        tensors = stored.get(key)
        for tensor in tensors if isinstance(tensors, list) else ():
            shape = tensor.get("shape") if isinstance(tensor, dict) else None
            if isinstance(shape, list):
                tensor["shape"] = [UNNAMED if length == -1 else length for length in shape]
    return {**stored, "record_version": RECORD_VERSION}


def mismatch(info: EngineInfo, library: str, version: str, compute_capability: str) -> str:
    """Why an engine cannot run here, in a sentence; empty when nothing speaks against it.

    Args:
        info: the engine's record.
        library: library that is to run it.
        version: that library's version.
        compute_capability: the GPU's, e.g. ``8.9``; empty when there is no GPU to compare with.
    """
    if (info.library, info.version) != (library, version):
        return f"it was built by {info.library} {info.version}, and this is {library} {version}"
    if not compute_capability or compute_capability in info.compute_capabilities:
        return ""
    if PORTABLE in info.compute_capabilities and _order(compute_capability) >= (8, 0):
        return ""
    built = ", ".join(info.compute_capabilities)
    return f"it was built for compute capability {built}, and this GPU has {compute_capability}"


def _order(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)
