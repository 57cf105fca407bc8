"""Calibration data: deterministic, streamed, and honest about what it cannot use."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from calibration_samples import SAMPLING, write_images

from scaleport.calibration.images import (
    Sampling,
    draw_patches,
    find_images,
    held_pairs,
)
from scaleport.errors import ImageError, UsageError
from scaleport.imaging.files import Image, save_image
from scaleport.imaging.pairs import make_pair, read_rgb


def drawn(images, sampling=SAMPLING, scale=(1.0, 4.0)):
    return list(draw_patches(images, sampling, scale))


def test_patches_depend_on_the_seed_alone(images):
    found = find_images(images, 2)
    first, second = drawn(found), drawn(found)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert a.grid == b.grid
    other = drawn(found, dataclasses.replace(SAMPLING, seed=1))
    assert any(
        a.image.shape != b.image.shape or (a.image != b.image).any()
        for a, b in zip(first, other, strict=True)
    )


def test_scales_cover_the_declared_range(images):
    sampling = dataclasses.replace(SAMPLING, patches=12, largest_scale=4.0)
    patches = drawn(find_images(images, 2), sampling, (1.0, 8.0))
    ratios = sorted(p.grid.output_size[0] / p.grid.input_size[0] for p in patches)
    assert ratios[0] == pytest.approx(1, abs=0.05)
    assert ratios[-1] == pytest.approx(4, abs=0.1)
    assert sum(r > 2 for r in ratios) == pytest.approx(6, abs=1)
    for patch in patches:
        assert patch.image.dtype == np.float32
        assert patch.image.min() >= 0 and patch.image.max() <= 1
        assert max(patch.image.shape[2:]) <= SAMPLING.side


def test_held_out_images_are_never_calibrated_on(images):
    found = find_images(images, 2)
    assert len(found.held_out) == 2
    assert not set(found.held_out) & set(found.calibration)
    assert len(found.held_out) + len(found.calibration) == 5


def test_at_most_half_is_held_out(images):
    assert len(find_images(images, None).held_out) == 2
    assert len(find_images(images, 2).held_out) == 2
    for many in (3, 8):
        with pytest.raises(UsageError, match=f"{many} held-out .* the 5 in .* hold out 2 at most"):
            find_images(images, many)


def test_eight_are_held_out_where_there_are_sixteen(images, tmp_path):
    from shutil import copy

    for number in range(20):
        copy(next(p for p in images.rglob("*.png")), tmp_path / f"{number}.png")
    assert len(find_images(tmp_path, None).held_out) == 8
    assert len(find_images(tmp_path, 10).held_out) == 10
    with pytest.raises(UsageError, match="50 held-out images are more than half of the 20"):
        find_images(tmp_path, 50)


def test_hash_knows_names_and_bytes(images, tmp_path):
    copy = write_images(tmp_path / "copy", 5)
    assert find_images(copy, 2).sha256 == find_images(images, 2).sha256
    (copy / "000.png").rename(copy / "zzz.png")
    renamed = find_images(copy, 2).sha256
    assert renamed != find_images(images, 2).sha256
    write_images(copy, 1, height=81)
    assert find_images(copy, 2).sha256 not in (renamed, find_images(images, 2).sha256)


def test_held_out_pairs_are_those_of_benchmarks(images):
    for pair in held_pairs(find_images(images, 2), SAMPLING, 2.7):
        assert pair.lr.dtype == pair.hr.dtype == np.uint8
        assert pair.lr.shape[0] == int(64 / 2.7)
        assert pair.hr.shape[:2] == (62, 62)
    same = make_pair(np.full((9, 9, 3), 7, np.uint8), 3)
    assert (same.lr == 7).all()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    peaks = []
    for count in (10, 500):
        folder = write_images(tmp_path / str(count), 10, 400, 400)
        for number in range(10, count):
            (folder / f"{number:03}.png").hardlink_to(folder / f"{number % 10:03}.png")
        sampling = dataclasses.replace(SAMPLING, patches=count, side=24)
        found = find_images(folder, 2)
        tracemalloc.start()
        for _ in draw_patches(found, sampling, (1.0, 4.0)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] == pytest.approx(peaks[0], rel=0.1)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(tmp_path, count):
    folder = write_images(tmp_path / "few", count)
    with pytest.raises(UsageError, match="needs at least 2"):
        find_images(folder, 2)


def test_missing_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        find_images(tmp_path / "nowhere", 2)


def test_unreadable_image_is_named(tmp_path):
    folder = write_images(tmp_path / "bad", 3)
    for path in folder.iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"00[0-2]\.png is damaged"):
        drawn(find_images(folder, 1))


def test_images_of_one_colour_are_refused(tmp_path):
    for number in range(4):
        save_image(tmp_path / f"{number}.png", Image(np.zeros((40, 40, 3), np.uint8)))
    with pytest.raises(UsageError, match="all of one colour"):
        drawn(find_images(tmp_path, 1))


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 2), (9, 8, 4)])
def test_every_kind_of_picture_becomes_rgb(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save_image(tmp_path / "a.png", Image(pixels))
    found = read_rgb(tmp_path / "a.png")
    assert found.shape == (9, 8, 3) and found.dtype == np.uint8
    first = pixels if pixels.ndim == 2 else pixels[..., 0]
    np.testing.assert_array_equal(found[..., 0], first)


def test_sixteen_bits_are_reduced(tmp_path):
    save_image(tmp_path / "a.png", Image(np.full((9, 8), 0x8040, np.uint16)))
    assert (read_rgb(tmp_path / "a.png") == 0x80).all()


@pytest.mark.parametrize("wrong", [{"patches": 0}, {"held_out": 0}, {"side": 2}, {"held_side": 3}])
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError):
        Sampling(**wrong)
