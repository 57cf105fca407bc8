"""Bundles and results that several parity tests look at, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from scaleport.bundle.manifest import Parity
from scaleport.bundle.reader import read_manifest
from scaleport.bundle.writer import BundleWriter


@pytest.fixture(scope="session")
def every_format(tiny_bundle, tiny_checkpoint, shared) -> Callable[[str], Path]:
    """Function from ``liif`` or ``igconv`` to a bundle for every backend that runs here.

    The Core ML packages join the graphs of ``tiny_bundle``, which need not be lowered again.
    """
    from scaleport.export import write_coreml
    from scaleport.export.plan import ExportOptions, ExportPlan
    from scaleport.models import load_checkpoint

    def get(name: str) -> Path:
        source = tiny_bundle(name)

        def make(path: Path) -> None:
            manifest = read_manifest(source)
            network = load_checkpoint(tiny_checkpoint(name))
            with BundleWriter(path, overwrite=False) as writer:
                for relpath in manifest.files:
                    shutil.copyfile(source / relpath, writer.path(relpath))
                plan = ExportPlan(network, ExportOptions(), writer.path)
                graphs = {**manifest.graphs, "coreml": tuple(write_coreml.write(plan))}
                writer.finish(msgspec.structs.replace(manifest, graphs=graphs, files={}))

        return shared(f"{name}-every-format.bundle", make)

    return get


@pytest.fixture(scope="session")
def full_grid(every_format) -> Callable[[str], Parity]:
    """Function from ``liif`` or ``igconv`` to the results of the whole parity grid."""
    from scaleport.validation.parity.proof import validate

    found: dict[str, Parity] = {}

    def get(name: str) -> Parity:
        if name not in found:
            found[name] = validate(every_format(name))
        return found[name]

    return get
