"""What every hostile file is made with: a good bundle, and ways to spoil a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[[Path, Path], None]
MAKERS: dict[str, Maker] = {}
"""By name: a function that writes hostile files into an empty folder, given a good bundle."""

EVIL = "evil.bundle"


def attack(make: Maker) -> Maker:
    """Register a maker under its own name, with dashes."""
    MAKERS[make.__name__.replace("_", "-")] = make
    return make


def copied(home: Path, good: Path) -> Path:
    """A copy of the good bundle that may be spoilt."""
    return Path(shutil.copytree(good, home / EVIL))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as a JSON document."""
    source = bundle / "manifest.json"
    content = json.loads(source.read_bytes())
    change(content)
    source.write_text(json.dumps(content))


def replace(bundle: Path, relpath: str, data: bytes, fmt: str = "") -> None:
    """Put a file in, with the right size and hash in the manifest, as its author would.

    With ``fmt`` it also becomes the first graph of a format, a stage ``encode`` in fp32.
    """
    path = bundle / relpath
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def change(content: dict[str, Any]) -> None:
        content["files"][relpath] = entry
        if fmt:
            add_graph(content, fmt, relpath)

    edit(bundle, change)


def add_graph(content: dict[str, Any], fmt: str, relpath: str) -> None:
    """Name a file as the stage ``encode`` of a format, in front of all others."""
    model = dict(content["graphs"]["onnx"][0])
    stage = next(g for g in content["graphs"]["onnx"] if g["stage"] == "encode")
    model.update(stage, path=relpath, precision="fp32", target={})
    content["graphs"][fmt] = [model, *content["graphs"].get(fmt, [])]
