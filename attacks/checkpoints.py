"""Checkpoints that ask for too much, and pickles that would run code."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from makers import attack

NAME = "evil.safetensors"


def _split(good: Path) -> tuple[dict[str, Any], bytes]:
    data = (good / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _join(home: Path, header: bytes, weights: bytes) -> None:
    (home / NAME).write_bytes(struct.pack("<Q", len(header)) + header + weights)


def _edited(home: Path, good: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint with another header."""
    header, weights = _split(good)
    header = copy.deepcopy(header)
    change(header)
    _join(home, json.dumps(header).encode(), weights)


def _configured(home: Path, good: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint with another configuration."""

    def in_header(header: dict[str, Any]) -> None:
        meta = json.loads(header["__metadata__"]["scaleport"])
        change(meta)
        header["__metadata__"]["scaleport"] = json.dumps(meta)

    _edited(home, good, in_header)


@attack
def checkpoint_empty(home: Path, good: Path) -> None:
    """Nothing at all."""
    (home / NAME).touch()


@attack
def checkpoint_header_endless(home: Path, good: Path) -> None:
    """A header of 2^64 - 1 bytes."""
    (home / NAME).write_bytes(b"\xff" * 8 + b"{}")


@attack
def checkpoint_header_long(home: Path, good: Path) -> None:
    """A sparse header of 64 MiB."""
    _join(home, b"{" + b" " * (64 << 20) + b"}", b"")


@attack
def checkpoint_header_deep(home: Path, good: Path) -> None:
    """A hundred thousand lists inside one another."""
    _join(home, b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"")


@attack
def checkpoint_key_twice(home: Path, good: Path) -> None:
    """Two entries for one weight."""
    header, weights = _split(good)
    name = next(key for key in header if key != "__metadata__")
    text = json.dumps(header)
    _join(home, (text[:-1] + f', "{name}": {json.dumps(header[name])}}}').encode(), weights)


@attack
def checkpoint_offsets_overlap(home: Path, good: Path) -> None:
    """Two weights in the same bytes."""

    def change(header: dict[str, Any]) -> None:
        names = [key for key in header if key != "__metadata__"]
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]

    _edited(home, good, change)


@attack
def checkpoint_shape_huge(home: Path, good: Path) -> None:
    """A weight that declares 2^60 numbers."""

    def change(header: dict[str, Any]) -> None:
        name = next(key for key in header if key != "__metadata__")
        header[name]["shape"] = [1 << 30, 1 << 30]

    _edited(home, good, change)


@attack
def checkpoint_shape_of_text(home: Path, good: Path) -> None:
    """A shape whose product is a text of eight gigabytes; fuzzing found it."""

    def change(header: dict[str, Any]) -> None:
        name = next(key for key in header if key != "__metadata__")
        header[name]["shape"] = ["x", 1 << 33]

    _edited(home, good, change)


@attack
def checkpoint_cut(home: Path, good: Path) -> None:
    """Half of the weights."""
    data = (good / "model.safetensors").read_bytes()
    (home / NAME).write_bytes(data[: len(data) // 2])


@attack
def checkpoint_nan(home: Path, good: Path) -> None:
    """Weights that are no numbers."""
    header, weights = _split(good)
    _join(home, json.dumps(header).encode(), b"\xff" * len(weights))


@attack
def checkpoint_version(home: Path, good: Path) -> None:
    """A version of tomorrow."""
    _configured(home, good, lambda meta: meta.update(format_version=999))


@attack
def network_wide(home: Path, good: Path) -> None:
    """Layers of a hundred thousand channels: 400 GB in a header of a few bytes."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(width=100_000))


@attack
def network_wider_than_integers(home: Path, good: Path) -> None:
    """Layers of more channels than a machine counts."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(width=1 << 62))


@attack
def network_of_many_blocks(home: Path, good: Path) -> None:
    """A billion blocks."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(blocks=1_000_000_000))


@attack
def network_of_many_layers(home: Path, good: Path) -> None:
    """A decoder of fifty thousand layers of one number."""
    _configured(home, good, lambda meta: meta["config"]["upsampler"].update(hidden=[1] * 50_000))


@attack
def network_of_negative_width(home: Path, good: Path) -> None:
    """Layers of less than nothing."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(width=-8))


@attack
def network_of_text(home: Path, good: Path) -> None:
    """A number that is a text with a line break."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(width="8\n9"))


@attack
def network_of_a_module(home: Path, good: Path) -> None:
    """A part by the name of a Python function."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(name="os:system"))


@attack
def network_of_a_path(home: Path, good: Path) -> None:
    """A part by the path of a Python file."""
    _configured(home, good, lambda meta: meta["config"]["encoder"].update(name="../../evil.py"))


@attack
def network_deep(home: Path, good: Path) -> None:
    """An option nested a hundred deep."""
    nested: Any = 1
    for _ in range(100):
        nested = [nested]
    _configured(home, good, lambda meta: meta["config"]["upsampler"].update(hidden=nested))


class _Touch:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('ran-code', 'w').close()",)


@attack
def pickle_named_safetensors(home: Path, good: Path) -> None:
    """A pickle under the name of a checkpoint."""
    (home / NAME).write_bytes(pickle.dumps({"w": _Touch()}, protocol=2))


@attack
def pickle_with_code(home: Path, good: Path) -> None:
    """A pickle that runs code, as old versions of torch saved weights."""
    (home / "evil.pth").write_bytes(pickle.dumps({"w": _Touch()}, protocol=2))


@attack
def pickle_with_code_in_an_archive(home: Path, good: Path) -> None:
    """The same in the archive that torch saves now."""
    with zipfile.ZipFile(home / "evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"w": _Touch()}, protocol=2))
        archive.writestr("evil/version", "3\n")


@attack
def pickle_of_numbers(home: Path, good: Path) -> None:
    """A pickle that is no weights at all."""
    (home / "evil.pth").write_bytes(pickle.dumps(list(range(10)), protocol=2))
