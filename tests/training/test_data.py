import numpy as np
import pytest
from PIL import Image

from scaleport.errors import ImageError, OutputError, UsageError
from scaleport.imaging.resample import imresize
from scaleport.training import data
from scaleport.training.data import Sampler, build_cache, degrade, split_holdout
from scaleport.training.recipe import Downscale


@pytest.fixture
def cache(photos, tmp_path):
    return build_cache(photos, tmp_path / "work")


def test_cache_holds_the_pixels(photos, cache):
    assert len(cache) == 5
    assert sum(entry.lossy for entry in cache.entries) == 1
    for i, entry in enumerate(cache.entries):
        assert np.array_equal(cache[i], np.asarray(Image.open(photos / entry.name)))


def test_cache_is_decoded_once_and_again_when_files_change(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("L", (5, 4), 7).save(folder / "a.png")
    calls = []
    real = data.read_rgb
    monkeypatch.setattr(data, "read_rgb", lambda path: calls.append(path) or real(path))
    for _ in range(2):
        cache = build_cache(folder, tmp_path / "work")
    assert len(calls) == 1
    assert cache[0].shape == (4, 5, 3) and (cache[0] == 7).all()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(folder / "b.png")
    cache = build_cache(folder, tmp_path / "work")
    assert len(calls) == 3
    assert cache[1][0, 0].tolist() == [1, 2, 3]


def test_progress_counts_to_the_end(photos, tmp_path):
    seen = []
    build_cache(photos, tmp_path, lambda done, count: seen.append((done, count)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_empty_folder(tmp_path):
    with pytest.raises(UsageError, match="no images below"):
        build_cache(tmp_path, tmp_path / "work")
    with pytest.raises(UsageError, match="no such folder"):
        build_cache(tmp_path / "none", tmp_path / "work")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_unreadable_image_names_the_file_and_leaves_no_cache(tmp_path, content):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "broken.png"
    if content is None:
        Image.effect_noise((64, 64), 50).save(path)
        content = path.read_bytes()[:1000]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.png") as caught:
        build_cache(folder, tmp_path / "work")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "work").iterdir()) == []


def test_work_folder_that_cannot_be_made(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        build_cache(photos, tmp_path / "file")


def test_degrade_is_imresize_on_bytes():
    hr = np.random.default_rng(0).integers(0, 256, (2, 33, 40, 3))
    lr = degrade(hr, 12, 17)
    for i in range(2):
        whole = imresize(hr[i], 12, 17, round_passes=True)
        # float32 may round a value near a half the other way.
        assert np.abs(lr[i] - whole).max() <= 1
        assert (lr[i] == whole).mean() > 0.99


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.7, 3.3])
def test_patches_fit_their_scale(cache, scale):
    sampler = Sampler(cache, [0, 1, 2, 3], 8, 4, Downscale(0.5, 0.7))
    batch = sampler.draw(scale, np.random.default_rng(1))
    side = round(8 * scale)
    assert batch.lr.shape == (4, 8, 8, 3) and batch.hr.shape == (4, side, side, 3)
    assert batch.lr.dtype == batch.hr.dtype == np.float32
    assert batch.lr.min() >= 0 and batch.hr.max() <= 1
    for lr, hr in zip(batch.lr, batch.hr, strict=True):
        expected = degrade(hr * 255, 8, 8) / 255
        np.testing.assert_allclose(lr, expected, atol=1.01 / 255)


def test_draws_depend_on_the_generator_only(cache):
    sampler = Sampler(cache, [0, 1, 2, 3, 4], 8, 4, Downscale(0.5, 0.7))
    first = sampler.draw(2.0, np.random.default_rng([3, 5]))
    sampler.draw(3.0, np.random.default_rng([3, 6]))
    again = sampler.draw(2.0, np.random.default_rng([3, 5]))
    other = sampler.draw(2.0, np.random.default_rng([3, 7]))
    assert np.array_equal(first.hr, again.hr) and np.array_equal(first.lr, again.lr)
    assert not np.array_equal(first.hr, other.hr)


def test_all_eight_orientations_occur(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.arange(16 * 3, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(image).save(folder / "a.png")
    sampler = Sampler(build_cache(folder, tmp_path / "work"), [0], 4, 200, Downscale())
    batch = sampler.draw(1.0, np.random.default_rng(0))
    assert len({crop.tobytes() for crop in batch.hr}) == 8


def test_images_too_small(cache):
    sampler = Sampler(cache, [0, 1], 8, 1, Downscale())
    with pytest.raises(UsageError, match="80x80"):
        sampler.draw(10.0, np.random.default_rng(0))


@pytest.mark.parametrize(("count", "images"), [(10, 3), (10, 9), (727, 8), (5, 0)])
def test_holdout_is_a_split(count, images):
    train, held = split_holdout(count, images)
    assert len(held) == images
    assert sorted(train + held) == list(range(count))


def test_holdout_must_leave_some():
    with pytest.raises(UsageError, match="leave some"):
        split_holdout(4, 4)
