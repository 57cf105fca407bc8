"""Arguments of the wrong kind from programs are refused by name, before they are used."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scaleport
from scaleport.batch.run import upscale_files
from scaleport.errors import ImageError, ScaleError, ScaleportError, UsageError
from scaleport.runtimes.file import upscale_file

PIXELS = np.zeros((8, 9, 3), np.uint8)
PICTURE = Image.new("RGB", (9, 8))


@pytest.fixture(scope="module")
def up(tiny_bundle):
    with scaleport.load(tiny_bundle("liif"), "onnxruntime") as loaded:
        yield loaded


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    PICTURE.save("photo.png")
    return Path("photo.png")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"...", "bytes is no image: it holds a file and not its pixels; PIL.Image.open"),
        (io.BytesIO(), "BytesIO is no image: it holds a file and not its pixels; PIL.Image.open"),
        (None, "NoneType is no image; give an array"),
        (5, "int is no image; give an array"),
        (np.zeros((2, 2, 3), complex), "ndarray is no image: its values are complex128"),
        (PIXELS.astype(object), "ndarray is no image: its values are object"),
        (PICTURE.convert("CMYK"), "convert it with its colour profile"),
        ("https://example.org/a.png", "is an address and not a file; download it first"),
        (Path("missing.png"), "cannot read missing.png"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_no_image(up: Any, image: Any, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        up(image, 2)


@pytest.mark.parametrize("scale", ["2", "x2", 2j, (1, 2, 3), None, 0, float("nan"), [], {}])
def test_what_is_no_scale(up: Any, scale: Any) -> None:
    with pytest.raises(ScaleError, match="scale"):
        up(PIXELS, scale)


@pytest.mark.parametrize("size", [5, (1, 2, 3), (10.5, 20), "20x20", ("20", "20")])
def test_what_is_no_size(up: Any, size: Any) -> None:
    with pytest.raises(ScaleError, match=r"a size is \(height, width\) in whole pixels, got"):
        up(PIXELS, size=size)


@pytest.mark.parametrize("region", [(0, 0, 1), (0, 0, 4.5, 4), "0,0,4,4", 7])
def test_what_is_no_region(up: Any, region: Any) -> None:
    with pytest.raises(ScaleError, match=r"a region is \(y0, x0, y1, x1\)"):
        up.open(PIXELS).render(2, region=region)


def test_numbers_of_other_types_are_taken(up: Any) -> None:
    expected = up(PIXELS, (2, 3))
    for scale in ([2, 3], np.array([2.0, 3.0]), (np.float32(2), 3)):
        np.testing.assert_array_equal(up(PIXELS, scale), expected)
    np.testing.assert_array_equal(up(PIXELS, size=np.array([16, 27])), expected)
    view = up.open(PIXELS)
    part = view.render((2, 3), region=np.array([1, 2, 5, 9]))
    np.testing.assert_array_equal(part, expected[1:5, 2:9])


@pytest.mark.parametrize("given", [PICTURE, PIXELS, None, 4, b"photo.png"], ids=type)
def test_files_are_given_by_their_paths(up: Any, photo: Path, given: Any) -> None:
    name = f"not by .*{'None' if given is None else type(given).__name__}"
    with pytest.raises(UsageError, match=f"an image file is given by its path, {name}.*up\\(image"):
        upscale_file(up, given, "large.png", scale=2)
    with pytest.raises(UsageError, match=f"the output is given by its path, {name}"):
        upscale_file(up, photo, given, scale=2)
    with pytest.raises(UsageError, match=f"an input is given by its path, {name}"):
        upscale_files(up, [given], "out/", scale=2)
    with pytest.raises(UsageError, match=f"a bundle is given by its path, {name}"):
        scaleport.load(given)
    assert [path.name for path in Path().iterdir()] == ["photo.png"]


def test_one_path_stands_for_a_list_of_one(up: Any, photo: Path) -> None:
    report = upscale_files(up, photo, "out/", scale=2)
    assert repr(report) == "<Report: 1 made, 0 kept, 0 failed, 0 left out>"


def test_a_bundle_is_loaded_before_it_upscales(photo: Path) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda bundle: upscale_file(bundle, photo, "large.png", scale=2),
        lambda bundle: upscale_files(bundle, [photo], "out/", scale=2),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"scaleport\.load\('photo.bundle'\)"):
            call(Path("photo.bundle"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": None}, "backend is a name, not None; known: auto"),
        ({"backend": "onxruntime"}, "did you mean onnxruntime"),
        ({"policy": 256}, r"policy is a scaleport\.TilePolicy"),
        ({"options": {}}, "options is a scaleport.runtimes.base.SessionOptions"),
        ({"threads": -1}, "threads is a whole number of at least 0, not -1"),
        ({"threads": "2"}, "threads is a whole number of at least 0, not '2'"),
        ({"precision": "fp8"}, "there are: fp32, fp16"),
        ({"allow": "anything"}, "unknown allowance 'anything'; known: custom-ops"),
        ({"inference_precision": "fp8"}, "known: fp32, tf32, bf16, fp16"),
    ],
    ids=str,
)
def test_what_load_does_not_take(tiny_bundle, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        scaleport.load(tiny_bundle("liif"), **given)


def test_one_allowance_may_be_a_text(tiny_bundle) -> None:
    scaleport.load(tiny_bundle("liif"), allow="custom-ops").close()


@pytest.mark.parametrize("limit", ["tile", "render_pixels", "cache_bytes"])
def test_limits_are_whole_numbers(limit: str) -> None:
    for value in (-1, "256", 2.5):
        with pytest.raises(UsageError, match=f"{limit} is a whole number of at least 0"):
            scaleport.TilePolicy(**{limit: value})


def test_what_objects_say_of_themselves(up: Any) -> None:
    assert repr(up) == "<Upscaler tiny-liif on onnxruntime, fp32, x1 to x8>"
    view = up.open(PIXELS)
    kept = "0 MiB of features kept"
    assert repr(view) == f"<View of 8 x 9 pixels in <tiny-liif on onnxruntime, fp32>, {kept}>"
    other = scaleport.load(up.stages.source.bundle, "onnxruntime")
    other.close()
    assert repr(other) == "<Upscaler tiny-liif on onnxruntime, fp32, closed, x1 to x8>"
    assert issubclass(UsageError, ScaleportError)
