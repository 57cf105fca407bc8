"""Graphs with right hashes: the first byte of the input chooses what the rest is taken for.

0 an ONNX graph, 1 OpenVINO IR, 2 the record of an engine, 3 the model of a Core ML package, 4 the
listing of one. The bundle's own checks run, and the readers of records and packages behind them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.bundle.manifest import FileEntry, Graph, Manifest, ScaleRange, SizeRange
    from scaleport.bundle.reader import Bundle
    from scaleport.mil import read_program
    from scaleport.runtimes.engine_record import read_record

from harness import run, scratch

ROOT = scratch()
PACKAGE = "coreml/encode.mlpackage"
MODEL = f"{PACKAGE}/Data/com.apple.CoreML/model.mlmodel"
KINDS = (
    ("onnx", "onnx/encode.onnx", "onnx/encode.onnx"),
    ("openvino", "openvino/encode.xml", "openvino/encode.xml"),
    ("tensorrt", "tensorrt/encode.engine.json", "tensorrt/encode.engine"),
    ("coreml", MODEL, PACKAGE),
    ("coreml", f"{PACKAGE}/Manifest.json", PACKAGE),
)
LISTING = (
    b'{"fileFormatVersion":"1.0.0","itemInfoEntries":{"A":{"path":"com.apple.CoreML/model.mlmodel"'
    b',"author":"a","name":"n","description":""}},"rootModelIdentifier":"A"}'
)
DEFAULTS = {
    "onnx/encode.onnx": b"\x08\x08\x3a\x0c\x0a\x0a\x22\x08Identity",
    "openvino/encode.xml": b"<net/>",
    "openvino/encode.bin": bytes(64),
    "tensorrt/encode.engine": b"engine",
    "tensorrt/encode.engine.json": b"{}",
    MODEL: b"\x08\x09",
    f"{PACKAGE}/Manifest.json": LISTING,
}


def entry(data: bytes) -> FileEntry:
    """Size and hash."""
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


ENTRIES = {name: entry(data) for name, data in DEFAULTS.items()}
for _name, _data in DEFAULTS.items():
    (ROOT / _name).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / _name).write_bytes(_data)


def manifest(fmt: str, path: str, files: dict[str, FileEntry]) -> Manifest:
    """A manifest of one graph."""
    sizes = SizeRange(min=1, opt=1, max=1)
    graph = Graph(path=path, stage="encode", precision="fp32", inputs=(), outputs=())
    return Manifest(
        format_version=1,
        name="x",
        family="query",
        model={},
        parameters=1,
        scale=ScaleRange(min=1.0, max=2.0),
        size_rule="round-half-up",
        height=sizes,
        width=sizes,
        receptive_field=1,
        tiling="exact",
        graphs={fmt: (graph,)},
        files=files,
        tool_versions={},
    )


def target(data: bytes) -> None:
    """Put the file in, ask for the graph, and read what Scaleport itself reads of it."""
    if not data:
        return
    fmt, changed, path = KINDS[data[0] % len(KINDS)]
    body = data[1:]
    (ROOT / changed).write_bytes(body)
    try:
        bundle = Bundle(ROOT, manifest(fmt, path, {**ENTRIES, changed: entry(body)}))
        found: Path = bundle.file(path)
        if fmt == "tensorrt":
            read_record(found)
        elif fmt == "coreml":
            read_program(found)
    finally:
        (ROOT / changed).write_bytes(DEFAULTS[changed])


if __name__ == "__main__":
    run(target)
