"""Training images, decoded once into one file that any number of runs read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaleport.aliases import Uint8Array
from scaleport.atomic import atomic_path, write_text, written
from scaleport.errors import UsageError
from scaleport.imaging.folders import KNOWN, images_below
from scaleport.imaging.pairs import read_rgb
from scaleport.progress import Progress

_LOSSY = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})
_DECODING = 2
"""Raised when files are decoded to other pixels than before: older caches are made anew."""


@dataclass(frozen=True)
class Entry:
    """Where one image lies in the cache."""

    name: str
    height: int
    width: int
    offset: int
    lossy: bool


class ImageCache:
    """All images of a folder tree as one memory-mapped file of uint8 RGB.

    Attributes:
        entries: where each image lies.
        data: uint8[bytes], all pixels one after the other.
    """

    def __init__(self, path: Path, entries: list[Entry]) -> None:
        self.entries = entries
        self.data = np.memmap(path, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Uint8Array:
        """uint8[H, W, 3], a view into the file."""
        entry = self.entries[index]
        size = entry.height * entry.width * 3
        flat = self.data[entry.offset : entry.offset + size]
        return flat.reshape(entry.height, entry.width, 3)


def build_cache(folder: Path, target: Path, progress: Progress | None = None) -> ImageCache:
    """Decode every image below a folder, or reuse what an earlier run decoded.

    Runs may share ``target``, also at the same time: the files' names are made from the list of
    images, and appear only when complete.

    Args:
        folder: searched recursively for images of every kind that is read; nothing hidden.
        target: where ``images-*.u8`` and ``images-*.json`` are written: 3 bytes per pixel.
        progress: told of the images that are done.

    Raises:
        UsageError: if the folder does not exist or holds no image.
        ImageError: if a file cannot be decoded.
        OutputError: if the cache cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    files = images_below(folder)
    if not files:
        raise UsageError(f"no images below {folder}; known: {KNOWN}")
    listing = [
        (p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files
    ]
    described = json.dumps([_DECODING, str(folder.resolve()), listing])
    key = hashlib.sha256(described.encode()).hexdigest()
    data_path = target / f"images-{key[:16]}.u8"
    index_path = data_path.with_suffix(".json")
    known = _read_index(index_path, key)
    if known is not None and data_path.is_file():
        return ImageCache(data_path, known)
    with written(target):
        target.mkdir(parents=True, exist_ok=True)
    entries, offset = [], 0
    with atomic_path(data_path) as new, new.open("wb") as out:
        for count, (path, (name, _, _)) in enumerate(zip(files, listing, strict=True)):
            pixels = read_rgb(path)
            lossy = path.suffix.lower() in _LOSSY
            height, width, _ = pixels.shape
            entries.append(Entry(name, height, width, offset, lossy))
            offset += pixels.size
            out.write(pixels.tobytes())
            if progress is not None:
                progress(count + 1, len(files), "decoding the images")
    index = {"key": key, "entries": [vars(entry) for entry in entries]}
    write_text(index_path, json.dumps(index))
    return ImageCache(data_path, entries)


def split_holdout(count: int, images: int) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: evenly spread, the same in every run.

    Raises:
        UsageError: if nothing is left to train on.
    """
    if images >= count:
        raise UsageError(f"{count} images cannot give {images} for validation and leave some")
    held = {(2 * i + 1) * count // (2 * images) for i in range(images)}
    return [i for i in range(count) if i not in held], sorted(held)


def _read_index(path: Path, key: str) -> list[Entry] | None:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return [Entry(**entry) for entry in index["entries"]] if index["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
