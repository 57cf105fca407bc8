"""Checkpoints: safetensors with a configuration; the input is ``header JSON``, NUL, weights.

The header's length is written by the target and the configuration, which the format keeps as JSON
in a string, is plain JSON here, so that mutations reach both.
"""

from __future__ import annotations

import json
import struct

import atheris

with atheris.instrument_imports(include=["scaleport"]):
    from scaleport.models.checkpoint import load_checkpoint, read_metadata

from harness import run, scratch
from json_mutator import mutate_json

FILE = scratch() / "network.safetensors"


def split(data: bytes) -> tuple[bytes, bytes]:
    """Header and weights of an input."""
    header, _, weights = data.partition(b"\0")
    return header, weights


def safetensors(data: bytes) -> bytes:
    """The file that an input stands for; inputs that are no JSON are taken as files."""
    header, weights = split(data)
    try:
        content = json.loads(header)
        meta = content["__metadata__"]
        meta["scaleport"] = json.dumps(meta["scaleport"])
        header = json.dumps(content).encode("utf-8", "surrogatepass")
    except (ValueError, KeyError, TypeError, RecursionError):
        return data
    return struct.pack("<Q", len(header)) + header + weights


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Mostly change the header, and leave weights that are all zero alone."""
    header, weights = split(data)
    if seed % 8 == 0 or not weights:
        return bytes(atheris.Mutate(data, max_size))
    return mutate_json(header, max_size - len(weights) - 1, seed) + b"\0" + weights


def target(data: bytes) -> None:
    """Read the metadata, then build the network and load its weights."""
    FILE.write_bytes(safetensors(data))
    read_metadata(FILE)
    load_checkpoint(FILE)


if __name__ == "__main__":
    run(target, mutate)
