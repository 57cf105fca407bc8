"""A small bundle whose files are a few bytes each."""

from __future__ import annotations

from pathlib import Path

from scaleport.bundle.manifest import Graph, Manifest, ScaleRange, SizeRange
from scaleport.bundle.writer import BundleWriter
from scaleport.tensor import TensorSpec

SIZES = SizeRange(min=1, opt=64, max=4096)


def onnx(label: str) -> bytes:
    """The smallest ONNX file: an ``Identity``, and a label as the name of its producer."""
    return (
        b"\x08\x08\x12" + bytes([len(label)]) + label.encode() + b"\x3a\x0c\x0a\x0a\x22\x08Identity"
    )


CONTENT = {
    "model.safetensors": b"weights" * 10,
    "onnx/fp32/encode.onnx": onnx("encode"),
    "onnx/fp32/render.onnx": onnx("render"),
    "onnx/fp32/render.onnx.data": b"render weights",
    "onnx/fp16/encode.onnx": onnx("encode at half precision"),
    "openvino/fp32/encode.xml": b"<net/>",
    "openvino/fp32/encode.bin": b"",
    "coreml/fp16/encode.mlpackage/Manifest.json": b"{}",
    "coreml/fp16/encode.mlpackage/Data/com.apple.CoreML/model.mlmodel": b"program",
}


def graph(path: str, precision: str = "fp32") -> Graph:
    stage = path.rsplit("/", 1)[1].split(".")[0]
    return Graph(
        path=path,
        stage=stage,
        precision=precision,  # type: ignore[arg-type]
        inputs=(TensorSpec(name="image", dtype="float32", shape=("N", 3, "H", "W")),),
        outputs=(TensorSpec(name="feature", dtype="float32", shape=("N", 64, "H", "W")),),
    )


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "format_version": 1,
        "name": "tiny",
        "family": "query",
        "model": {"encoder": {"name": "edsr"}, "upsampler": {"name": "liif"}},
        "parameters": 1234,
        "scale": ScaleRange(min=1.0, max=8.0),
        "size_rule": "round-half-up",
        "height": SIZES,
        "width": SIZES,
        "receptive_field": 36,
        "tiling": "exact",
        "graphs": {
            "onnx": (
                graph("onnx/fp32/encode.onnx"),
                graph("onnx/fp32/render.onnx"),
                graph("onnx/fp16/encode.onnx", "fp16"),
            ),
            "openvino": (graph("openvino/fp32/encode.xml"),),
            "coreml": (graph("coreml/fp16/encode.mlpackage", "fp16"),),
        },
        "files": {},
        "tool_versions": {"scaleport": "0.1.0"},
        "skipped": {"tensorrt": "no GPU"},
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


def write(target: Path, content: dict[str, bytes] = CONTENT, overwrite: bool = False) -> Manifest:
    with BundleWriter(target, overwrite) as writer:
        for relpath, data in content.items():
            writer.path(relpath).write_bytes(data)
        return writer.finish(manifest())
