import numpy as np
import pytest
from PIL import Image

from scaleport.errors import ImageError, OutputError, UsageError
from scaleport.training import cache as cache_module
from scaleport.training.cache import build_cache, split_holdout


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
    real = cache_module.read_rgb
    monkeypatch.setattr(cache_module, "read_rgb", lambda path: calls.append(path) or real(path))
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
    build_cache(photos, tmp_path, lambda done, count, _: seen.append((done, count)))
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


def test_runs_share_a_cache_of_one_folder_only(photos, tmp_path):
    other = tmp_path / "in"
    other.mkdir()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(other / "b.png")
    shared = tmp_path / "shared"
    first, second = build_cache(photos, shared), build_cache(other, shared)
    again = build_cache(photos, shared)
    assert len(second) == 1 and again.entries == first.entries
    assert np.array_equal(again[2], first[2])


@pytest.mark.parametrize(("count", "images"), [(10, 3), (10, 9), (727, 8), (5, 0)])
def test_holdout_is_a_split(count, images):
    train, held = split_holdout(count, images)
    assert len(held) == images
    assert sorted(train + held) == list(range(count))


def test_holdout_must_leave_some():
    with pytest.raises(UsageError, match="leave some"):
        split_holdout(4, 4)
