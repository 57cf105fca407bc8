"""Exports that were made before are copied from the cache instead of made again.

An entry's key is a hash of everything that the bytes of a bundle depend on: the checkpoint, the
options, the versions of all tools, the sources of this package and the GPU that engines are built
for. See :mod:`scaleport.export_cache` for where entries are kept.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Manifest
from scaleport.bundle.reader import open_bundle
from scaleport.bundle.writer import BundleWriter
from scaleport.errors import ArtifactError, BackendError, UsageError
from scaleport.export.plan import ExportOptions
from scaleport.export_cache import discard, fetch, keep
from scaleport.extras import installed_versions
from scaleport.models.registry import ENCODERS, UPSAMPLERS
from scaleport.runtimes.cuda import find_device
from scaleport.shipped import checkpoint_name, license_of

_ENGINES: Final = ("tensorrt", "tensorrt-rtx")
"""Libraries that may be installed and still not build on this machine at this time."""


def cache_key(
    checkpoint: Path, config: dict[str, Any], options: ExportOptions, tools: dict[str, str]
) -> str:
    """What a bundle is kept under; empty for one that must not be kept.

    Networks with parts of other packages are not kept: what those compute is not known here.

    Args:
        checkpoint: the file.
        config: its configuration.
        options: what to export; whether a target may be overwritten does not count.
        tools: versions of everything that has a hand in an export.
    """
    for registry, role in ((ENCODERS, "encoder"), (UPSAMPLERS, "upsampler")):
        name = _part(config, role)
        if name not in registry or registry.origin(name):
            return ""
    given = {**asdict(options), "overwrite": None, "formats": sorted(set(options.formats))}
    said = {
        "checkpoint": sha256_file(checkpoint).sha256,
        "name": checkpoint_name(checkpoint),
        "license": license_of(checkpoint, None),
        "options": given,
        "tools": {**tools, **installed_versions(("spandrel", "cuda-python", "numpy"))},
        "sources": _sources(),
        "gpu": _gpu() if "tensorrt" in options.formats else "",
    }
    data = msgspec.json.encode(said, order="deterministic", enc_hook=msgspec.to_builtins)
    return hashlib.sha256(data).hexdigest()


def from_cache(key: str, target: Path, overwrite: bool) -> Manifest | None:
    """Write the bundle of a key to a target, or say that there is none by None.

    Every file is compared with its hash; a damaged entry is removed.

    Raises:
        OutputError: if the target cannot be written or replaced.
    """
    entry = fetch(key) if key else None
    if entry is None:
        return None
    try:
        bundle = open_bundle(entry.absolute(), verify="all")
    except (ArtifactError, UsageError):  # damaged, or removed by another process meanwhile
        discard(key)
        return None
    with BundleWriter(target, overwrite) as writer:
        try:
            for relpath in bundle.manifest.files:
                shutil.copyfile(bundle.path / relpath, writer.path(relpath))
        except FileNotFoundError:
            return None
        return writer.finish(bundle.manifest)


def to_cache(key: str, target: Path, manifest: Manifest) -> None:
    """Keep a finished bundle, unless engines were left out for a reason that may pass."""
    may_pass = "tensorrt" in manifest.skipped and installed_versions(_ENGINES)
    if key and not may_pass:
        keep(key, target, manifest.name)


def _part(config: dict[str, Any], role: str) -> str:
    """Name of a network's encoder or upsampler; empty where a configuration is damaged."""
    part = config.get(role)
    name = part.get("name") if isinstance(part, dict) else None
    return name if isinstance(name, str) else ""


@cache
def _sources() -> str:
    """Hash of the package's own code: a checkout changes while its version stays."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _gpu() -> str:
    try:
        return str(find_device())
    except BackendError:
        return ""
