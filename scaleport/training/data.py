"""Training images: decoded once, then random pairs of LR and HR patches on the fly.

All randomness comes from ``(seed, step)``, so a batch depends on nothing that happened before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from scaleport.errors import ImageError, OutputError, UsageError
from scaleport.grid import Axis
from scaleport.imaging.resample import resize_matrix
from scaleport.training.recipe import Downscale

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_LOSSY = frozenset({".jpg", ".jpeg"})

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """Where one image lies in the cache."""

    name: str
    height: int
    width: int
    offset: int
    lossy: bool


class ImageCache:
    """All images of a folder tree as one memory-mapped file of uint8 RGB."""

    def __init__(self, path: Path, entries: list[Entry]) -> None:
        self.entries = entries
        self._data = np.memmap(path, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Pixels:
        """uint8[H, W, 3], a view into the file."""
        entry = self.entries[index]
        size = entry.height * entry.width * 3
        flat = self._data[entry.offset : entry.offset + size]
        return flat.reshape(entry.height, entry.width, 3)


def build_cache(
    folder: Path, work: Path, progress: Callable[[int, int], None] | None = None
) -> ImageCache:
    """Decode every image below a folder, or reuse what an earlier run decoded.

    Args:
        folder: searched recursively for PNG, JPEG, WebP, BMP and TIFF files.
        work: where ``images.u8`` and ``images.json`` are written: 3 bytes per pixel.
        progress: called with (images done, images in all).

    Raises:
        UsageError: if the folder does not exist or holds no image.
        ImageError: if a file cannot be decoded.
        OutputError: if the cache cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"no images below {folder}; known: {', '.join(sorted(SUFFIXES))}")
    listing = [
        (p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files
    ]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), listing]).encode()).hexdigest()
    data_path, index_path = work / "images.u8", work / "images.json"
    known = _read_index(index_path, key)
    if known is not None and data_path.is_file():
        return ImageCache(data_path, known)
    temporary = data_path.with_name("images.u8.tmp")
    try:
        work.mkdir(parents=True, exist_ok=True)
        index_path.unlink(missing_ok=True)
        entries, offset = [], 0
        with temporary.open("wb") as out:
            for count, (path, (name, _, _)) in enumerate(zip(files, listing, strict=True)):
                pixels = read_rgb(path)
                lossy = path.suffix.lower() in _LOSSY
                height, width, _ = pixels.shape
                entries.append(Entry(name, height, width, offset, lossy))
                offset += pixels.size
                out.write(pixels.tobytes())
                if progress is not None:
                    progress(count + 1, len(files))
        temporary.replace(data_path)
        index = {"key": key, "entries": [vars(entry) for entry in entries]}
        index_path.write_text(json.dumps(index), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {work}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return ImageCache(data_path, entries)


def read_rgb(path: Path) -> Pixels:
    """Decode one file to uint8[H, W, 3].

    Raises:
        ImageError: if it is not an image or is damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(f"cannot read {path}: {reason}; repair or remove it") from error


def _read_index(path: Path, key: str) -> list[Entry] | None:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return [Entry(**entry) for entry in index["entries"]] if index["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Batch:
    """Patches at one scale: float32 in [0, 1], LR [B, p, p, 3] and HR [B, q, q, 3]."""

    lr: npt.NDArray[np.float32]
    hr: npt.NDArray[np.float32]


def degrade(hr: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float32]:
    """Reduce [..., H, W, 3] with values 0 .. 255 as MATLAB's ``imresize`` reduces 8-bit images.

    Antialiased bicubic, borders mirrored, rounded to 8 bits after each pass. As matrix products:
    faster than :func:`scaleport.imaging.imresize` for patches, and a value that lies within
    float32 precision of a half may round the other way.
    """
    rows = resize_matrix(Axis.whole(hr.shape[-3], height)).astype(np.float32)
    cols = resize_matrix(Axis.whole(hr.shape[-2], width)).astype(np.float32)
    *front, h, w, c = hr.shape
    x = np.asarray(hr, dtype=np.float32).reshape(*front, h, w * c)
    x = np.clip(np.floor(np.matmul(rows, x) + 0.5), 0, 255)
    x = np.matmul(cols, x.reshape(*front, height, w, c))
    result: npt.NDArray[np.float32] = np.clip(np.floor(x + 0.5), 0, 255)
    return result


class Sampler:
    """Random batches from some of the images of a cache."""

    def __init__(
        self, cache: ImageCache, indices: list[int], patch: int, batch: int, downscale: Downscale
    ) -> None:
        self.cache = cache
        self.indices = indices
        self.patch = patch
        self.batch = batch
        self.downscale = downscale

    def draw(self, scale: float, rng: np.random.Generator) -> Batch:
        """One batch: HR crops of ``round(patch * scale)`` pixels and their reduction.

        Raises:
            UsageError: if no image is large enough.
        """
        side = int(self.patch * scale + 0.5)
        crops = np.stack([self._crop(side, rng) for _ in range(self.batch)]).astype(np.float32)
        lr = degrade(crops, self.patch, self.patch)
        return Batch(lr / np.float32(255), crops / np.float32(255))

    def _crop(self, side: int, rng: np.random.Generator) -> npt.NDArray[Any]:
        for _ in range(1000):
            index = self.indices[int(rng.integers(len(self.indices)))]
            image, entry = self.cache[index], self.cache.entries[index]
            wanted = side
            if entry.lossy and rng.random() < self.downscale.probability:
                wanted = round(side / rng.uniform(self.downscale.smallest, 1))
            # An image too small for the enlarged crop may still serve without it.
            wanted = wanted if min(image.shape[:2]) >= wanted else side
            if min(image.shape[:2]) >= wanted:
                break
        else:
            raise UsageError(f"no training image found with at least {side}x{side} pixels")
        y = int(rng.integers(image.shape[0] - wanted + 1))
        x = int(rng.integers(image.shape[1] - wanted + 1))
        crop: npt.NDArray[Any] = image[y : y + wanted, x : x + wanted]
        if wanted != side:
            crop = degrade(crop, side, side)
        turns = int(rng.integers(8))
        crop = np.rot90(crop, turns % 4)
        return crop[:, ::-1] if turns >= 4 else crop


def split_holdout(count: int, images: int) -> tuple[list[int], list[int]]:
    """Indices for training and for validation: evenly spread, the same in every run.

    Raises:
        UsageError: if nothing is left to train on.
    """
    if images >= count:
        raise UsageError(f"{count} images cannot give {images} for validation and leave some")
    held = {(2 * i + 1) * count // (2 * images) for i in range(images)}
    return [i for i in range(count) if i not in held], sorted(held)
