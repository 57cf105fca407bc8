"""Manifests and results for tests that run no graph."""

from __future__ import annotations

from scaleport.bundle.manifest import (
    FORMAT_VERSION,
    Manifest,
    Parity,
    ParityResult,
    ScaleRange,
    SizeRange,
)
from scaleport.validation.parity.gates import Gates

SIZES = SizeRange(min=1, opt=256, max=1024)


def manifest(**changes):
    fields = {
        "format_version": FORMAT_VERSION,
        "name": "sample",
        "family": "query",
        "model": {},
        "parameters": 0,
        "scale": ScaleRange(min=1.0, max=8.0),
        "size_rule": "round-half-up",
        "height": SIZES,
        "width": SIZES,
        "receptive_field": 8,
        "tiling": "exact",
        "graphs": {},
        "files": {},
        "tool_versions": {},
    }
    return Manifest(**{**fields, **changes})


def result(backend="onnxruntime", **changes):
    fields = {
        "backend": backend,
        "precision": "fp32",
        "shape": (15, 21),
        "shape_name": "odd",
        "scale": (2.0, 2.0),
        "mode": "staged",
        "max_abs": 1e-6,
        "psnr": 120.0,
        "passed": True,
        "note": "",
    }
    return ParityResult(**{**fields, **changes})


def parity(*results, **changes):
    fields = {
        "gates": Gates().limits(),
        "device": {r.backend: "CPU" for r in results},
        "tool_versions": {"scaleport": "0.1.0"},
        "results": results,
    }
    return Parity(**{**fields, **changes})
