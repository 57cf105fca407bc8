"""What is known about a TensorRT engine without a GPU: a small JSON file beside it.

Neither TensorRT nor TensorRT-RTX can open an engine where there is no GPU, so the builder writes
down what it was given and what came out: ``encode.engine`` is described by
``encode.engine.json``. The record carries the engine's SHA-256, so that the two cannot part
unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Sha256
from scaleport.errors import ArtifactError, one_line

RECORD_VERSION = 1
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


class EngineTensor(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One input or output of an engine; -1 is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profile: dict[str, ShapeRange]
    network_layers: int
    precisions: dict[str, int]
    engine_layers: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The cache key of this engine, see :func:`engine_key`."""
        capabilities = ",".join(self.compute_capabilities)
        return engine_key(self.onnx_sha256, self.library, self.version, capabilities, self.profile)

    def target(self) -> dict[str, str]:
        """What the engine is bound to, for the manifest's ``Graph.target``."""
        return {
            "library": self.library,
            "version": self.version,
            "compute_capability": ",".join(self.compute_capabilities),
            "key": self.key,
        }


def engine_key(
    sha256_onnx: str,
    library: str,
    version: str,
    compute_capability: str,
    profile: Mapping[str, ShapeRange],
) -> str:
    """Cache key of an engine: a SHA-256 in hexadecimal over everything that shapes it.

    Args:
        sha256_onnx: hash of the ONNX graph and its weights.
        library: ``tensorrt`` or ``tensorrt_rtx``.
        version: the library's version.
        compute_capability: target GPUs, e.g. ``8.9`` or ``8.6,8.9``.
        profile: ranges of the dynamic inputs; their order does not matter.
    """
    parts = [
        sha256_onnx,
        library,
        version,
        compute_capability,
        {name: msgspec.to_builtins(profile[name]) for name in sorted(profile)},
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


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
        info = msgspec.json.decode(path.read_bytes(), type=EngineInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
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
