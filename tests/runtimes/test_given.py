"""What programs hand over: the right pixels, or an error that names the call that makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy_backend import numpy_stages, write_bundle

from scaleport.errors import ImageError, OutputError
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.imaging.given import pixels_of
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (7, 9, 3), np.uint8)
RGBA = RNG.integers(0, 256, (7, 9, 4), np.uint8)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    path = write_bundle(tmp_path_factory.mktemp("given") / "m.bundle")
    return Upscaler(numpy_stages(path), TilePolicy(tile=5))


def same(up, image, pixels) -> None:
    """An image is upscaled as these pixels are, to the same type."""
    made, wanted = up(image, 2.3), up(pixels, 2.3)
    assert isinstance(made, np.ndarray)
    assert made.dtype == wanted.dtype
    np.testing.assert_array_equal(made, wanted)


def palette(transparent: bool):
    picture = PIL.Image.fromarray(RGB).quantize(5)
    if transparent:
        picture.info["transparency"] = 2
    # Far from what the indices would give.
    wanted = np.asarray(picture.convert("RGBA" if transparent else "RGB"))
    assert wanted.max() > 100
    return picture, wanted


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_stands_for_its_colours(up, transparent):
    same(up, *palette(transparent))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_picture_is_turned_as_its_exif_says(up, orientation, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with PIL.Image.open(tmp_path / "a.png") as picture:
        same(up, picture, load_image(tmp_path / "a.png").pixels)


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (PIL.Image.fromarray(RGB), RGB),
        (PIL.Image.fromarray(RGBA), RGBA),
        (PIL.Image.fromarray(RGB[..., 0]), RGB[..., 0]),
        (PIL.Image.fromarray(RGB[..., 0] > 99), np.where(RGB[..., 0] > 99, 255, 0).astype("u1")),
        (PIL.Image.fromarray(RGB[..., 0].astype("u2") * 257), RGB[..., 0].astype("u2") * 257),
        (PIL.Image.fromarray(RGB[..., 0].astype("i4") * 200), RGB[..., 0].astype("u2") * 200),
        (PIL.Image.fromarray(RGB[..., 0] / np.float32(255)), RGB[..., 0] / np.float32(255)),
        (PIL.Image.fromarray(RGB).convert("RGBX"), RGB),
    ],
    ids=["rgb", "rgba", "gray", "bilevel", "gray16", "integers", "float", "rgbx"],
)
def test_pil_modes(up, picture, wanted):
    same(up, picture, wanted)


def test_premultiplied_and_other_spaces_become_what_they_show():
    opaque = RGBA.copy()
    opaque[..., 3] = 255
    given = pixels_of(PIL.Image.fromarray(opaque).convert("RGBa"))
    np.testing.assert_array_equal(given, opaque)
    luma = PIL.Image.fromarray(RGB).convert("YCbCr")
    assert np.abs(pixels_of(luma).astype(int) - RGB).max() <= 4


def test_a_transparent_colour_becomes_alpha():
    picture = PIL.Image.fromarray(RGB)
    picture.info["transparency"] = tuple(int(v) for v in RGB[2, 3])
    alpha = pixels_of(picture)[..., 3]
    np.testing.assert_array_equal(alpha == 0, (RGB[2, 3] == RGB).all(axis=2))


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_colours_that_need_a_profile_are_refused(up, mode):
    picture = PIL.Image.new(mode, (4, 4))
    with pytest.raises(ImageError, match=rf"mode {mode} .*convert\('RGB'\)"):
        up(picture, 2)


def test_a_file_that_pil_cannot_finish_is_named_as_that(up, tmp_path):
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:120])
    with (
        PIL.Image.open(tmp_path / "a.png") as cut,
        pytest.raises(ImageError, match="cannot take pixels from the PIL picture"),
    ):
        up(cut, 2)


def test_a_path_is_the_picture_in_the_file(up, tmp_path):
    path = tmp_path / "a.png"
    save_image(path, Image(RGBA))
    for given in (path, str(path)):
        same(up, given, RGBA)
    with pytest.raises(ImageError, match=r"cannot read .*gone\.png"):
        up(tmp_path / "gone.png", 2)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f4", "f2"])
def test_batches_of_every_type(up, dtype):
    batch = np.stack([RGB, RGB[::-1]]).transpose(0, 3, 1, 2)
    if dtype.startswith("f"):
        batch = (batch / np.float32(255)).astype(dtype)
    else:
        batch = batch.astype(dtype) * (257 if "2" in dtype else 1)
    made = up(batch, 2.3)
    assert made.dtype == {"u1": np.uint8, "u2": np.uint16, ">u2": np.uint16}.get(dtype, np.float32)
    for one, image in zip(made, batch, strict=True):
        wanted = up(np.ascontiguousarray(image.transpose(1, 2, 0)), 2.3)
        np.testing.assert_array_equal(one.transpose(1, 2, 0), wanted)
    region = up.open(batch).render(2.3, region=(2, 3, 9, 11))
    np.testing.assert_array_equal(region, made[:, :, 2:9, 3:11])


def test_tensors_are_taken_as_arrays_are(up):
    torch = pytest.importorskip("torch")
    batch = torch.rand(1, 3, 6, 5, requires_grad=True)
    same(up, batch, batch.detach().numpy())
    same(up, torch.from_numpy(RGB), RGB)
    half = batch.detach().to(torch.bfloat16)
    same(up, half, half.float().numpy())


NAN = (RGB / np.float32(255)).copy()
NAN[2, 3, 1] = np.nan


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RGB.astype("f4"), r"float pixels are in \[0, 1\].* 0 to 255|go from .*image / 255"),
        (RGB.astype("f8").transpose(2, 0, 1)[None], "image / 255"),
        (RGB.astype("f4") / 127.5 * 5 - 5, "divide them by their range"),
        (NAN, r"1 value that is NaN or infinite.*nan_to_num"),
        (NAN.transpose(2, 0, 1)[None], "NaN or infinite"),
        (np.full((4, 4), np.inf, "f4"), "16 values that are NaN or infinite"),
        (RGB.astype("i8"), r"got int64; image\.astype\(numpy\.uint8\)"),
        (RGB.astype("u4"), "got uint32"),
        (RGB > 99, "got bool"),
        (RGB.tolist(), "got int64"),
        (RGB.transpose(2, 0, 1), r"got \[3, 7, 9\]; image\.transpose\(1, 2, 0\)"),
        (RGB[None], r"a batch must be \[N, 3, H, W\].*transpose\(0, 3, 1, 2\)"),
        (RGBA[None].transpose(0, 3, 1, 2), "one by one"),
        (None, "NoneType is no image; give an array"),
        (7, "int is no image"),
        (b"\x89PNG", "bytes is no image"),
        (["a.png"], "list is no image"),
        (np.zeros((2, 2), "c8"), "ndarray is no image"),
        (np.zeros((0, 4, 3), "u1"), "at least 1 pixel"),
        (np.zeros((5, 4, 6), "u1"), "1 to 4 channels"),
        ([[1], [1, 2]], "list is no image"),
    ],
)
def test_what_is_refused_says_the_reason_and_the_call(up, image, words):
    with pytest.raises(ImageError, match=words) as caught:
        up(image, 2)
    assert "got shape ()" not in str(caught.value)


def test_a_little_beyond_the_range_is_no_other_unit(up):
    image = (RGB / np.float32(255)) * 1.4 - 0.2
    assert up(image, 2).max() > 1.01


@pytest.mark.parametrize("tile", [0, 4])
def test_nan_in_a_file_is_blamed_on_the_file(up, tmp_path, tile):
    source = tmp_path / "a.tif"
    save_image(source, Image(NAN))
    up.policy = TilePolicy(tile=tile)
    with pytest.raises(ImageError, match=r"a\.tif: the image holds 1 value that is NaN"):
        upscale_file(up, source, tmp_path / "b.tif", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_floats_of_a_file_in_another_unit_are_noted(up, tmp_path):
    for name, factor in (("wide", 255.0), ("usual", 1.0)):
        save_image(tmp_path / f"{name}.tif", Image(RGB / np.float32(255) * np.float32(factor)))
        result = upscale_file(up, tmp_path / f"{name}.tif", tmp_path / "new/sub/b.tif", 2)
        said = [note for note in result.notes if "floats" in note]
        assert len(said) == (name == "wide")
        assert all("to 255 and were taken as they are" in note for note in said)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        upscale_file(up, tmp_path / "wide.tif", Path(tmp_path / "file/b.tif"), 2)
