"""What tests of bisect share: programs traced once, and bundles that were tampered with."""

from __future__ import annotations

import json

import pytest

from scaleport.bundle.integrity import sha256_file
from scaleport.export.by_format import trace_for


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """Tracing takes most of the time, and names tensors alike for networks that differ in weights.

    Weights are taken from the float32 network, never from what was traced.
    """
    monkeypatch.setattr("scaleport.validation.bisection.torch_side.trace_for", kept)


TRACES: dict = {}


def kept(format, stage):
    # ONNX and OpenVINO lower the same program.
    key = (format == "coreml", stage.name, stage.inputs, stage.outputs, structure(stage.module))
    if key not in TRACES:
        TRACES[key] = trace_for(format, stage)
    return TRACES[key]


def structure(module):
    """All that a trace keeps of a module: everything but the numbers of its weights.

    What a module prints is not enough: parameters of its own are no part of it, and a module
    that is fed with its kernels prints alike at every width.
    """
    parts = []
    for path, part in module.named_modules():
        # Exporters trace in evaluation mode, whatever the mode before.
        torchs = ("_parameters", "_buffers", "_modules", "training")
        own = {key: value for key, value in vars(part).items() if key not in torchs}
        weights = {**part._parameters, **part._buffers}
        shapes = {k: None if w is None else (w.shape, w.dtype) for k, w in weights.items()}
        parts.append((path, type(part).__qualname__, repr(own), repr(shapes)))
    return tuple(parts)


def rehash(bundle):
    """Make the hashes fit what the files hold now."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for relpath in manifest["files"]:
        entry = sha256_file(bundle / relpath)
        manifest["files"][relpath] = {"sha256": entry.sha256, "bytes": entry.bytes}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle
