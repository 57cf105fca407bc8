"""Manifests: the input is ``manifest.json`` of a bundle whose files are all empty."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.bundle.integrity import check_consistent
    from scaleport.bundle.manifest import MANIFEST_NAME, decode, encode
    from scaleport.bundle.reader import open_bundle, read_manifest

from harness import run, scratch
from json_mutator import mutate_json

BUNDLE = scratch()
for _name in ("model.safetensors", "onnx/fp32/encode.onnx", "onnx/fp32/render.onnx"):
    (BUNDLE / _name).parent.mkdir(parents=True, exist_ok=True)
    (BUNDLE / _name).touch()


def target(data: bytes) -> None:
    """Read the manifest, write what was read, and use every file it lists."""
    (BUNDLE / MANIFEST_NAME).write_bytes(data)
    manifest = read_manifest(BUNDLE)
    again = decode(encode(manifest))
    check_consistent(again)
    if again != manifest and b"null" not in data:
        raise AssertionError("a manifest that is written is not the one that was read")
    bundle = open_bundle(BUNDLE, verify="all")
    for name in bundle.manifest.files:
        path = bundle.file(name).resolve()
        if not path.is_relative_to(BUNDLE.resolve()):
            raise AssertionError(f"{name!r} is handed out from outside: {path}")


if __name__ == "__main__":
    run(target, mutate_json)
