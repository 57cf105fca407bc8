from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaleport.errors import ImageError, OutputError, UsageError
from scaleport.imaging import reading, writing
from scaleport.imaging.files import Image, Metadata, check_target, load_image, save_image

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def profile(icc: bytes) -> Metadata:
    return Metadata({"icc-profile-data": icc})


def picture(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_lossless_round_trip(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    pixels = picture(shape)
    save_image(tmp_path / f"a{suffix}", Image(pixels))
    loaded = load_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(loaded.pixels, pixels)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.metadata == Metadata()
    assert loaded.notes == ()
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_gray(tmp_path: Path, suffix: str) -> None:
    pixels = picture((6, 5), np.uint16)
    save_image(tmp_path / f"a{suffix}", Image(pixels))
    loaded = load_image(tmp_path / f"a{suffix}").pixels
    assert loaded.dtype == np.uint16
    np.testing.assert_array_equal(loaded, pixels)
    save_image(tmp_path / f"b{suffix}", Image(pixels[..., None].astype(">u2")))
    np.testing.assert_array_equal(load_image(tmp_path / f"b{suffix}").pixels, pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_webp(tmp_path: Path, channels: int) -> None:
    pixels = picture((9, 8, channels))
    save_image(tmp_path / "a.webp", Image(pixels), lossless=True)
    np.testing.assert_array_equal(load_image(tmp_path / "a.webp").pixels, pixels)


@pytest.mark.parametrize("shape", [(32, 24), (32, 24, 3)])
def test_jpeg_is_close(tmp_path: Path, shape: tuple[int, ...]) -> None:
    ramp = np.linspace(20, 200, 32).astype(np.uint8)
    pixels = np.broadcast_to(ramp.reshape(-1, *[1] * (len(shape) - 1)), shape)
    save_image(tmp_path / "a.jpg", Image(pixels), quality=95)
    loaded = load_image(tmp_path / "a.jpg").pixels
    assert loaded.shape == shape
    assert np.abs(loaded.astype(int) - pixels).max() <= 4
    save_image(tmp_path / "b.jpg", Image(picture((64, 64, 3))), quality=10)
    save_image(tmp_path / "c.jpg", Image(picture((64, 64, 3))), quality=95)
    assert (tmp_path / "b.jpg").stat().st_size * 2 < (tmp_path / "c.jpg").stat().st_size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # The same upright picture, stored as a camera would, by Pillow's own transpositions.
    upright = PIL.Image.fromarray(picture((4, 6, 3)))
    method = PIL.Image.Transpose
    store = {
        2: method.FLIP_LEFT_RIGHT,
        3: method.ROTATE_180,
        4: method.FLIP_TOP_BOTTOM,
        5: method.TRANSPOSE,
        6: method.ROTATE_90,
        7: method.TRANSVERSE,
        8: method.ROTATE_270,
    }
    stored = upright.transpose(store[orientation]) if orientation > 1 else upright
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif[0x8769] = {0xA002: stored.width, 0x9003: "2020:01:02 03:04:05"}
    exif[0x8825] = {1: "N"}
    stored.save(tmp_path / "in.png", exif=exif)
    loaded = load_image(tmp_path / "in.png")
    np.testing.assert_array_equal(loaded.pixels, np.asarray(upright))

    for name in ("out.png", "out.webp", "out.jpg"):
        save_image(tmp_path / name, loaded)
        with PIL.Image.open(tmp_path / name) as again:
            kept = again.getexif()
            assert kept.get(0x0112, 1) == 1
            assert kept[0x010F] == "Maker"
            details = kept.get_ifd(0x8769)
            assert details[0x9003] == "2020:01:02 03:04:05"
            assert details[0xA002] == 6
            assert kept.get_ifd(0x8825) == {1: "N"}
        assert load_image(tmp_path / name).pixels.shape == (4, 6, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_icc_profile_is_kept(tmp_path: Path, suffix: str) -> None:
    save_image(tmp_path / f"a{suffix}", Image(picture((8, 8, 3)), profile(SRGB)))
    assert load_image(tmp_path / f"a{suffix}").metadata.icc == SRGB


def test_gray_profile_is_kept_on_gray_only(tmp_path: Path) -> None:
    image = Image(picture((8, 8)), profile(GRAY_PROFILE))
    save_image(tmp_path / "a.png", image)
    assert load_image(tmp_path / "a.png").metadata.icc == GRAY_PROFILE
    save_image(tmp_path / "a.webp", image)  # holds RGB
    assert load_image(tmp_path / "a.webp").metadata.icc is None
    save_image(tmp_path / "b.png", Image(picture((8, 8, 3)), profile(GRAY_PROFILE)))
    assert load_image(tmp_path / "b.png").metadata.icc is None


def test_palettes_bits_and_transparency(tmp_path: Path) -> None:
    rgb = PIL.Image.fromarray(picture((8, 8, 3)) // 64 * 64)
    palette = rgb.quantize(200)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        load_image(tmp_path / "p.png").pixels, np.asarray(palette.convert("RGB"))
    )
    palette.save(tmp_path / "t.png", transparency=0)
    assert load_image(tmp_path / "t.png").pixels.shape == (8, 8, 4)
    rgb.convert("1").save(tmp_path / "b.png")
    bits = load_image(tmp_path / "b.png").pixels
    assert bits.shape == (8, 8)
    assert set(np.unique(bits)) == {0, 255}
    gray = PIL.Image.fromarray(np.array([[7, 8]], np.uint8))
    gray.save(tmp_path / "g.png", transparency=7)
    np.testing.assert_array_equal(load_image(tmp_path / "g.png").pixels, [[[7, 0], [8, 255]]])


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    PIL.Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "c.jpg", quality=100)
    loaded = load_image(tmp_path / "c.jpg")
    assert loaded.pixels.shape == (4, 4, 3)
    red, green, blue = loaded.pixels[0, 0]
    assert red < 60 < 120 < green < blue  # printed cyan, not the screen's
    assert loaded.metadata.icc is None


def test_what_is_lost_is_noted(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(picture((4, 4, 3), seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "m.tiff", save_all=True, append_images=frames[1:])
    loaded = load_image(tmp_path / "m.tiff")
    assert loaded.notes == ("only the first of 3 frames was read",)
    np.testing.assert_array_equal(loaded.pixels, np.asarray(frames[0]))


def one_line(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"hello, this is no picture")
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, word in (
        ("none.png", "No such file"),
        ("empty.png", "0 bytes"),
        ("text.png", "supported are PNG"),
        ("page.eps", "supported are PNG"),
        (".", "directory"),
        ("nul\0byte.png", "cannot read"),
    ):
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        one_line(caught, word)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_image(path, Image(picture((40, 40, 3))))
    size = path.stat().st_size
    for keep in (size // 2, 30, 8):
        os.truncate(path, keep)
        with pytest.raises(ImageError) as caught:
            load_image(path)
        one_line(caught, path.name)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 4)])
def test_16_bit_and_float_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    deep = picture(shape, np.uint16)
    for name in ("a.png", "a.tiff"):
        save_image(tmp_path / name, Image(deep))
        found = load_image(tmp_path / name).pixels
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, deep)
    floats = (deep / 60_000).astype(np.float32)
    save_image(tmp_path / "f.tiff", Image(floats))
    found = load_image(tmp_path / "f.tiff").pixels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, floats)


def test_32_bit_integers(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(ImageError, match=r"i\.tiff holds 32-bit"):
        load_image(tmp_path / "i.tiff")
    PIL.Image.fromarray(np.full((4, 4), 60_000, np.int32)).save(tmp_path / "j.tiff")
    np.testing.assert_array_equal(
        load_image(tmp_path / "j.tiff").pixels, np.full((4, 4), 60_000, np.uint16)
    )


def test_bitmaps_and_other_kinds_are_read(tmp_path: Path) -> None:
    rgb = picture((6, 5, 3))
    for name in ("a.bmp", "a.ppm", "a.gif"):
        PIL.Image.fromarray(rgb // 128 * 128).save(tmp_path / name)
        np.testing.assert_array_equal(load_image(tmp_path / name).pixels[..., :3], rgb // 128 * 128)
    save_image(tmp_path / "a.avif", Image(rgb), lossless=True)
    assert np.abs(load_image(tmp_path / "a.avif").pixels.astype(int) - rgb).max() <= 3


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", Image(picture((40, 40, 3))))
    monkeypatch.setattr(reading, "MOST_PIXELS", 100)
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(tmp_path / "a.png")


def sample(suffix: str) -> bytes:
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(picture((12, 9, 3))).save(file, suffix, exif=exif, icc_profile=SRGB)
    return file.getvalue()


SAMPLES = [sample(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_files_load_or_are_image_errors(
    tmp_path: Path, data: bytes, edits: list[tuple[float, int]], keep: float
) -> None:
    damaged = bytearray(data)
    for where, value in edits:
        damaged[int(where * len(damaged))] = value
    path = tmp_path / "damaged"
    path.write_bytes(damaged[: round(keep * len(damaged))])
    try:
        pixels = load_image(path).pixels
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.dtype in (np.uint8, np.uint16, np.float32)
        assert pixels.ndim in (2, 3)


def test_unwritable_targets(tmp_path: Path) -> None:
    image = Image(picture((4, 4, 3)))
    (tmp_path / "d.png").mkdir()
    for target, word in (
        (tmp_path / "a.xyz", "use one of .png"),
        (tmp_path / "a", "use one of .png"),
        (tmp_path / "none" / "a.png", "no directory"),
        (tmp_path / "d.png", "cannot write"),
        (tmp_path / ("n" * 300 + ".png"), "cannot write"),
    ):
        with pytest.raises(OutputError) as caught:
            save_image(target, image)
        one_line(caught, word)
    assert [p.name for p in tmp_path.iterdir()] == ["d.png"]
    assert check_target(tmp_path / "a.JPG") == "JPEG"


def test_formats_that_cannot_hold_the_pixels(tmp_path: Path) -> None:
    for name, pixels, word in (
        ("a.jpg", picture((4, 4, 4)), "alpha"),
        ("a.jpg", picture((4, 4), np.uint16), "16 bits"),
        ("a.webp", picture((4, 4), np.uint16), "16 bits"),
        ("a.png", np.zeros((4, 4), np.float32), "floats"),
        ("a.webp", picture((1, 16_384, 3)), "at most 16383"),
    ):
        with pytest.raises(OutputError) as caught:
            save_image(tmp_path / name, Image(pixels))
        one_line(caught, name, word)
    with pytest.raises(ImageError, match="float32"):
        save_image(tmp_path / "a.tiff", Image(np.zeros((4, 4), np.float64)))
    for quality in (0, 101):
        with pytest.raises(UsageError, match="quality"):
            save_image(tmp_path / "a.jpg", Image(picture((4, 4, 3))), quality=quality)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    save_image(path, Image(picture((4, 4, 3))))
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "encode", full)
    with pytest.raises(OutputError, match="No space left"):
        save_image(path, Image(picture((4, 4, 3), seed=1)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_link_keeps_being_one(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    pixels = picture((4, 4, 3))
    save_image(tmp_path / "link.png", Image(pixels))
    assert (tmp_path / "link.png").is_symlink()
    np.testing.assert_array_equal(load_image(tmp_path / "real.png").pixels, pixels)
