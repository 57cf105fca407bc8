import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from training_samples import tiny_recipe  # noqa: E402

from scaleport.errors import UsageError  # noqa: E402
from scaleport.imaging.resample import imresize  # noqa: E402
from scaleport.training.cache import build_cache  # noqa: E402
from scaleport.training.data import Sampler, Share  # noqa: E402
from scaleport.training.recipe import Recipe  # noqa: E402
from scaleport.training.reduction import reduce_patches, reduced  # noqa: E402


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    return build_cache(photos, tmp_path_factory.mktemp("cache"))


def sampler(cache, supervision="image", together=False, share=None, indices=None, **changes):
    recipe = msgspec.convert(tiny_recipe(**changes), Recipe)
    recipe.check()
    return Sampler(cache, indices or [0, 1, 2, 3], recipe, supervision, together, share)


def test_reduction_is_imresize_on_bytes():
    hr = np.random.default_rng(0).integers(0, 256, (2, 33, 40, 3))
    lr = reduced(hr, 12, 17)
    for i in range(2):
        whole = imresize(hr[i], 12, 17, round_passes=True)
        # float32 may round a value near a half the other way.
        assert np.abs(lr[i] - whole).max() <= 1
        assert (lr[i] == whole).mean() > 0.99


def test_reduction_is_matlab():
    """The published LR images of Set5, made by MATLAB."""
    folder = os.environ.get("SCALEPORT_DATA")
    if not folder:
        pytest.skip("SCALEPORT_DATA does not name the image folder")
    lr_folder = Path(folder) / "lr_matlab/new_symmetric/Set5"
    for scale in (2, 3, 4):
        for path in sorted((lr_folder / f"X{scale}").glob("*.png")):
            lr = np.asarray(Image.open(path).convert("RGB"))
            stem = path.stem.removesuffix(f"x{scale}").rstrip("_")
            hr = np.asarray(Image.open(Path(folder) / f"bench/Set5/{stem}.png").convert("RGB"))
            height, width = lr.shape[:2]
            made = reduced(hr[: height * scale, : width * scale], height, width)
            assert np.abs(made - lr).max() <= 1, path
            assert (made == lr).mean() > 0.9999, path


@pytest.mark.parametrize("scale", [1.3, 2, 4])
def test_pillow_is_imresize_but_for_rounding(scale):
    # Within this range nothing overshoots: Pillow also clips between its two passes.
    hr = np.random.default_rng(0).integers(90, 160, (2, 48, 48, 3), dtype=np.uint8)
    side = round(48 / scale)
    lr = reduce_patches(hr, side, "pil")
    for i in range(2):
        size = (side, side)
        assert np.array_equal(lr[i], Image.fromarray(hr[i]).resize(size, Image.Resampling.BICUBIC))
        # Pillow cuts its kernel off at the border, and works in fixed point.
        inner = slice(4, -4)
        whole = imresize(hr[i], side, side, border="replicate")[inner, inner].clip(0, 255)
        assert np.abs(lr[i][inner, inner].astype(float) - whole).max() <= 2


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.7, 3.3])
@pytest.mark.parametrize("method", ["matlab", "pil"])
def test_patches_fit_their_scale(cache, scale, method):
    made = sampler(cache, batch=4, scales={"range": [scale, scale]}, degradation=method)
    (group,) = made[1]
    side = round(8 * scale)
    assert group["lr"].shape == (4, 8, 8, 3) and group["target"].shape == (4, side, side, 3)
    assert group["lr"].dtype == group["target"].dtype == np.uint8
    assert group["sides"] == [side] * 4 and group["window"] == [0, 0, side, side]
    assert np.array_equal(group["lr"], reduce_patches(group["target"], 8, method))


def equal(one, other):
    return all(
        np.array_equal(a[key], b[key])
        for a, b in zip(one, other, strict=True)
        for key in ("lr", "target", "points", "window", "sides")
    )


@pytest.mark.parametrize("supervision", ["image", "points", "square"])
def test_batches_depend_on_seed_and_step_only(cache, supervision):
    one, other = (sampler(cache, supervision, queries=9) for _ in range(2))
    first = one[5]
    one[6]
    assert equal(first, one[5]) and equal(first, other[5])
    assert not equal(first, one[6])
    assert not equal(first, sampler(cache, supervision, queries=9, seed=4)[5])


@pytest.mark.parametrize("per", ["step", "sample"])
def test_processes_share_the_batch_of_one(cache, per):
    scales = {"range": [1.0, 3.0], "per": per}
    changes = {"batch": 4, "queries": 9, "scales": scales}
    (whole,) = sampler(cache, "points", True, **changes)[2]
    parts = [sampler(cache, "points", True, Share(i, 2), **changes)[2][0] for i in range(2)]
    for key in ("lr", "target", "points"):
        halves = sorted(x.tobytes() for part in parts for x in part[key])
        assert halves == sorted(x.tobytes() for x in whole[key])


def test_scales_per_step_sample_and_rank(cache):
    def sides(step, per, rank=0, **changes):
        made = sampler(
            cache,
            batch=6,
            share=Share(rank, 2),
            scales={"range": [1.0, 3.0], "per": per},
            **changes,
        )
        return [side for group in made[step] for side in group["sides"]]

    for step in range(4):
        assert len({*sides(step, "step"), *sides(step, "step", 1)}) == 1
        assert len(set(sides(step, "rank"))) == 1
    assert any(sides(step, "rank") != sides(step, "rank", 1) for step in range(4))
    assert any(len(set(sides(step, "sample"))) > 1 for step in range(4))
    drawn = {side for step in range(30) for side in sides(step, "step")}
    assert min(drawn) < 12 and max(drawn) > 20
    integers = sampler(cache, scales={"set": [2, 3]})
    assert {integers[step][0]["sides"][0] for step in range(20)} == {16, 24}


def test_points_and_squares_pick_their_pixels(cache):
    (whole,) = sampler(cache, scales={"set": [3]})[3]
    (points,) = sampler(cache, "points", scales={"set": [3]}, queries=20)[3]
    assert np.array_equal(points["lr"], whole["lr"])
    flat = whole["target"].reshape(2, -1, 3)
    for i in range(2):
        assert len(set(points["points"][i])) == 20
        assert np.array_equal(points["target"][i], flat[i][points["points"][i]])
    (square,) = sampler(cache, "square", scales={"set": [3]}, queries=25)[3]
    y0, x0, y1, x1 = square["window"]
    assert (y1 - y0, x1 - x0) == (5, 5)
    assert np.array_equal(square["target"], whole["target"][:, y0:y1, x0:x1])


def test_downscaled_crops_cover_more(cache):
    plain = sampler(cache, scales={"set": [2]}, downscale={})
    always = {"probability": 1.0, "smallest": 0.5, "largest": 0.5, "only_lossy": False}
    reduced = sampler(cache, scales={"set": [2]}, downscale=always)
    assert not np.array_equal(plain[0][0]["target"], reduced[0][0]["target"])
    lossy = sampler(cache, scales={"set": [2]}, downscale=always | {"only_lossy": True})
    kept = [np.array_equal(lossy[i][0]["target"], plain[i][0]["target"]) for i in range(8)]
    assert any(kept)


def test_all_eight_orientations_occur(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.arange(16 * 3, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(image).save(folder / "a.png")
    made = build_cache(folder, tmp_path / "work")
    changes = {"patch": 4, "batch": 200, "scales": {"set": [1]}}
    (group,) = sampler(made, indices=[0], **changes)[0]
    assert len({crop.tobytes() for crop in group["target"]}) == 8


def test_images_too_small(cache):
    with pytest.raises(UsageError, match="80x80"):
        sampler(cache, scales={"set": [10]})[0]


def test_a_batch_must_divide(cache):
    with pytest.raises(UsageError, match="3 processes"):
        sampler(cache, share=Share(0, 3))
