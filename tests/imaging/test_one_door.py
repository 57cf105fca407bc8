"""Training, evaluation and calibration see the pixels that upscaling sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pictures as make
import pytest

from scaleport.errors import ImageError
from scaleport.evaluation.protocols import PROTOCOLS
from scaleport.imaging.files import load_image
from scaleport.imaging.folders import images_below, images_in
from scaleport.imaging.pairs import read_colours, read_rgb

GRAY16 = make.noise(12, 10, 1, np.uint16, 1)
RGB = make.noise(12, 10, 3, np.uint8, 2)
FLOATS = make.noise(12, 10, 3, np.float32, 3)


def write_kinds(folder: Path) -> dict[str, np.ndarray]:
    """Files that decoders disagree on, and their right pixels in 8 bits."""
    turned = make.chunk(b"eXIf", make.exif(6))
    files = {
        "deep.png": (make.png_file(GRAY16), np.rint(GRAY16 / 257)),
        "deep.tif": (make.tiff_file(GRAY16)[0], np.rint(GRAY16 / 257)),
        "deep.pgm": (make.pnm_file(GRAY16, 65535, False), np.rint(GRAY16 / 257)),
        "floats.tif": (make.tiff_file(FLOATS)[0], np.rint(FLOATS * np.float32(255))),
        "turned.png": (make.png_file(make.stored(RGB, 6), turned), RGB),
        "alpha.png": (make.png_file(np.dstack([RGB, RGB[..., 0]])), RGB),
        "plain.bmp": (make.bmp_file(RGB, None), RGB),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: pixels.astype(np.uint8) for name, (_, pixels) in files.items()}


def coloured(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels


def test_all_readers_agree(tmp_path: Path) -> None:
    for name, right in write_kinds(tmp_path).items():
        path = tmp_path / name
        upscaled = load_image(path).pixels
        assert upscaled.shape[:2] == right.shape[:2], name
        np.testing.assert_array_equal(read_colours(path), right, name)
        np.testing.assert_array_equal(read_rgb(path), coloured(right), name)
        for protocol in PROTOCOLS.values():
            taken = protocol.taken(read_colours(path))
            expected = right if protocol.gray_is_luma else coloured(right)
            np.testing.assert_array_equal(taken, expected, name)


def test_training_decodes_the_same(tmp_path: Path) -> None:
    from scaleport.training.cache import build_cache

    (tmp_path / "images").mkdir()
    right = write_kinds(tmp_path / "images")
    cache = build_cache(tmp_path / "images", tmp_path / "cache")
    assert [entry.name for entry in cache.entries] == sorted(right)
    for index, entry in enumerate(cache.entries):
        np.testing.assert_array_equal(cache[index], coloured(right[entry.name]), entry.name)


def test_calibration_reads_through_the_same_door() -> None:
    from scaleport.calibration import images
    from scaleport.evaluation import run
    from scaleport.training import cache
    from scaleport.validation import loss

    assert images.read_rgb is read_rgb
    assert cache.read_rgb is read_rgb
    assert run.read_colours is read_colours
    assert loss.read_colours is read_colours


def test_nan_is_no_ground_truth(tmp_path: Path) -> None:
    floats = FLOATS.copy()
    floats[3, 4, 1] = np.nan
    (tmp_path / "a.tif").write_bytes(make.tiff_file(floats)[0])
    with pytest.raises(ImageError, match="holds NaN"):
        read_rgb(tmp_path / "a.tif")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """As a Mac leaves them beside every file on other disks."""
    (tmp_path / "deep" / ".trash").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "deep", tmp_path / "deep" / ".trash"):
        (place / "a.png").write_bytes(make.png_file(RGB))
        (place / "._a.png").write_bytes(b"\0\x05\x16\x07 not an image")
    assert images_in(tmp_path) == (tmp_path / "a.png",)
    assert images_below(tmp_path) == (tmp_path / "a.png", tmp_path / "deep" / "a.png")
