"""Make the bundles of the package: ``python tools/make_models.py``, or ``make models``.

Reads ``scaleport/weights/NAME.safetensors`` of every named model and writes
``scaleport/ready/NAME.bundle``: ONNX graphs in float32, which ONNX Runtime and OpenVINO both run
as they are, so that one copy serves both. Float16 graphs would save nothing on a processor but
disk. The checkpoint lies beside, in ``scaleport/weights``, and not a second time in the bundle.
Every bundle is measured against PyTorch on both runtimes before it is written.

A bundle whose checkpoint has not changed is left alone, unless ``--again`` is given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import msgspec

from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Manifest
from scaleport.bundle.reader import read_manifest
from scaleport.bundle.writer import BundleWriter, update_manifest
from scaleport.ready import CHECKPOINTS, PURPOSES, READY
from scaleport.shipped import BUNDLE_SUFFIX, shipped_weights

WITHOUT_WHOLE = {"scaleport-m", "scaleport-photo", "scaleport-s"}
"""Models whose weights are not shipped a second time, in the graph for other programs; with them
the wheel would be above 25 MB."""
BACKENDS = ("onnxruntime", "openvino")


def kept(manifest: Manifest, name: str) -> Manifest:
    """The manifest with the graphs that ship, each of them for both runtimes."""
    dropped = {"whole_size"} | ({"whole"} if name in WITHOUT_WHOLE else set())
    graphs = tuple(graph for graph in manifest.graphs["onnx"] if graph.stage not in dropped)
    return msgspec.structs.replace(manifest, graphs={"onnx": graphs, "openvino": graphs})


def make(name: str, checkpoint: Path, scratch: Path) -> None:
    """Export a model, measure it, and put it into the package.

    Raises:
        SystemExit: if a parity gate is not met.
    """
    # Here, so that nothing is imported where nothing is to be made.
    from scaleport.export.exporter import export_bundle
    from scaleport.export.plan import ExportOptions
    from scaleport.validation.parity.options import ValidationOptions
    from scaleport.validation.parity.proof import validate

    made = scratch / f"{name}{BUNDLE_SUFFIX}"
    export_bundle(checkpoint, made, ExportOptions(("onnx",), ("fp32",)))
    manifest = kept(read_manifest(made), name)
    update_manifest(made, manifest)
    parity = validate(made, ValidationOptions(BACKENDS, selection="quick"))
    failed = [case for case in parity.results if not case.passed]
    if failed:
        raise SystemExit(f"{name}: {len(failed)} cases outside the gates, such as {failed[0]}")
    with BundleWriter(READY / made.name, overwrite=True) as writer:
        for path in sorted({graph.path for graph in manifest.graphs["onnx"]}):
            shutil.copyfile(made / path, writer.path(path))
        writer.finish(msgspec.structs.replace(manifest, parity=parity))


def main() -> int:
    """Make what is missing or out of date, and say what it takes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="make all of them anew")
    again: bool = parser.parse_args().again
    warnings.simplefilter("ignore")  # of PyTorch's exporter about its own parts
    READY.mkdir(exist_ok=True)
    record = READY / CHECKPOINTS
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    weights = shipped_weights()
    for name in PURPOSES:
        found = sha256_file(weights[name]).sha256
        if known.get(name) == found and (READY / f"{name}{BUNDLE_SUFFIX}").is_dir() and not again:
            print(f"{name}: made from this checkpoint already")
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            make(name, weights[name], Path(scratch))
        known[name] = found
        text = json.dumps({name: known[name] for name in PURPOSES if name in known}, indent=1)
        record.write_text(text + "\n", encoding="utf-8")
        print(
            f"{name}: {_megabytes(READY / (name + BUNDLE_SUFFIX))}, "
            f"{time.perf_counter() - start:.0f} s"
        )
    print(f"all bundles: {_megabytes(READY)}; checkpoints: {_megabytes(weights[name].parent)}")
    return 0


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
