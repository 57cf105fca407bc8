"""Kinds of files and of damage that tools like this one have been seen to get wrong."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pictures as make
import PIL.Image
import pytest

from scaleport.batch.plan import READ_SUFFIXES as COLLECTED
from scaleport.errors import ImageError, OutputError
from scaleport.imaging.convert import layout_of
from scaleport.imaging.files import Image, check_target, load_image, save_image
from scaleport.imaging.kinds import KINDS, READ_SUFFIXES
from scaleport.imaging.metadata import left_out
from scaleport.imaging.vips import libvips

RGB = make.noise(20, 16, 3, np.uint8, 1)
RGBA = make.noise(20, 16, 4, np.uint8, 2)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refused(path: Path, data: bytes, *words: str, never: str = "") -> None:
    with pytest.raises(ImageError) as caught:
        load_image(written(path, data))
    text = str(caught.value)
    assert "\n" not in text
    assert text.count(str(path)) == 1
    for word in words:
        assert word in text
    assert not never or never not in text


def test_the_library_has_every_loader_of_the_table() -> None:
    vips = libvips()
    for kind in KINDS:
        if kind.loader:
            assert vips.type_find("VipsOperation", kind.loader), f"no loader for {kind.name}"


def test_everything_that_is_collected_from_folders_can_be_read() -> None:
    assert COLLECTED <= READ_SUFFIXES


# Damage


def test_tiff_whose_data_break_off_behind_its_directory(tmp_path: Path) -> None:
    data, _ = make.tiff_file(RGB, rows=4, first=True)
    np.testing.assert_array_equal(load_image(written(tmp_path / "a.tif", data)).pixels, RGB)
    refused(tmp_path / "a.tif", data[: len(data) * 2 // 3], "damaged")


def test_tiff_with_an_overwritten_strip(tmp_path: Path) -> None:
    data, strips = make.tiff_file(RGB, rows=4, deflate=True)
    for start, stop in strips:
        damaged = bytearray(data)
        damaged[start + 6 : stop - 6] = bytes(stop - start - 12)
        refused(tmp_path / "a.tif", bytes(damaged), "damaged")


def test_tiff_strip_that_decodes_to_more_than_its_rows(tmp_path: Path) -> None:
    """What libtiff reads of it looks sound; the checksum behind it does not."""
    pixels = np.zeros((8, 8), np.uint8)
    data, _ = make.tiff_file(pixels, deflate=True)
    longer = zlib.compress(bytes(range(72)), 0)
    longer = longer[:-1] + bytes([longer[-1] ^ 1])
    tags = {273: ("I", [len(data)]), 279: ("I", [len(longer)])}
    data, _ = make.tiff_file(pixels, deflate=True, tags=tags)
    refused(tmp_path / "a.tif", data + longer, "checksum")


@pytest.mark.parametrize("codec", ["zstd", "lzma"])
def test_a_codec_that_is_missing_is_named(tmp_path: Path, codec: str) -> None:
    data = make.by_pillow(RGB, "TIFF", compression=codec)
    path = written(tmp_path / "a.tif", data)
    try:
        found = load_image(path).pixels  # a library that has it
    except ImageError:
        refused(path, data, codec.upper(), "does not have", never="damaged")
    else:
        np.testing.assert_array_equal(found, RGB)


def test_png_data_that_were_overwritten(tmp_path: Path) -> None:
    data = make.png_file(RGB)
    middle = len(data) // 2
    refused(tmp_path / "a.png", data[:middle] + bytes(40) + data[middle + 40 :], "damaged")


def test_png_orientation_that_was_overwritten(tmp_path: Path) -> None:
    data = make.png_file(RGB, make.chunk(b"eXIf", make.exif(6)))
    at = data.index(b"eXIf") + 8
    refused(tmp_path / "a.png", data[:at] + b"\xff\xff\xff" + data[at + 3 :], "eXIf")


def test_progressive_jpeg_with_overwritten_data(tmp_path: Path) -> None:
    data = make.by_pillow(RGB, "JPEG", progressive=True, quality=95)
    at = len(data) * 2 // 3
    refused(tmp_path / "a.jpg", data[:at] + bytes(60) + data[at + 60 :], "damaged")


def test_a_harmless_warning_of_jpeg(tmp_path: Path) -> None:
    """Some cameras state a spectral range that means nothing in a sequential file."""
    data = bytearray(make.by_pillow(RGB, "JPEG", quality=90))
    scan = data.index(b"\xff\xda")
    assert data[scan + 12] == 63  # the end of the range
    right = load_image(written(tmp_path / "a.jpg", bytes(data))).pixels
    data[scan + 12] = 0
    found = load_image(written(tmp_path / "a.jpg", bytes(data))).pixels
    np.testing.assert_array_equal(found, right)


def test_plain_pgm_whose_last_digit_is_missing(tmp_path: Path) -> None:
    refused(tmp_path / "a.pgm", b"P2 2 1 255\n200 13", "last value")
    found = load_image(written(tmp_path / "a.pgm", b"P2 2 1 255\n200 130")).pixels
    np.testing.assert_array_equal(found, [[200, 130]])


def test_a_full_disk_is_not_called_damage(tmp_path: Path, monkeypatch) -> None:
    from scaleport.imaging import reading

    error = libvips().Error("unable to call", "system error: No space left on device\n")
    assert str(reading._fault(tmp_path / "a.png", error)).endswith("No space left on device")
    assert "damaged" not in str(reading._fault(tmp_path / "a.png", error))


# Kinds


def multi_picture(*extra: bytes) -> bytes:
    """An MPO as phones write it: two pictures in one JPEG."""
    buffer = io.BytesIO()
    frames = [PIL.Image.fromarray(RGB), PIL.Image.fromarray(RGB[:10, :8])]
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:], quality=90)
    data = buffer.getvalue()
    return data[:2] + b"".join(extra) + data[2:]


def xmp_segment(packet: bytes) -> bytes:
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


HDR = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
 xmlns:Container="http://ns.google.com/photos/1.0/container/"
 xmlns:Item="http://ns.google.com/photos/1.0/container/item/">
<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap"
 Item:Mime="image/jpeg" Item:Length="700"/></rdf:li></rdf:Seq></Container:Directory>
</rdf:Description></rdf:RDF></x:xmpmeta>"""  # noqa: E501


def test_multi_picture_jpeg(tmp_path: Path) -> None:
    found = load_image(written(tmp_path / "a.jpg", multi_picture()))
    first = make.of_pillow(multi_picture())
    assert np.abs(found.pixels.astype(int) - first).max() <= 1
    assert found.notes == ("only the first of 2 pictures was read",)


def test_ultra_hdr_jpeg(tmp_path: Path) -> None:
    data = multi_picture(xmp_segment(HDR))
    found = load_image(written(tmp_path / "a.jpg", data))
    assert found.pixels.shape == RGB.shape
    assert np.abs(found.pixels.astype(int) - make.of_pillow(data)).max() <= 1
    assert left_out(found.metadata, "JPEG", layout_of(found.pixels), (40, 32)) == (
        "a gain map (HDR) is left out",
        "what the file lists besides its main picture is left out",
    )
    save_image(tmp_path / "out.jpg", found)
    again = load_image(tmp_path / "out.jpg")
    assert again.notes == ()
    packet = bytes(again.metadata.fields["xmp-data"])
    assert b"hdrgm:Version" not in packet
    assert b"Container:Item" not in packet
    assert b'xmp:Rating="4"' in packet


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"v/1\x01", "OpenEXR"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw camera file"),
        (b"FUJIFILMCCD-RAW 0201", "raw camera file"),
        (b"\0\0\0\x18ftypisom\0\0\0\1isomavc1", "video"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw camera file"),
    ],
)
def test_other_kinds_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    refused(tmp_path / "picture", data, words, "supported are PNG", never="damaged")


def test_heic_without_its_codec(tmp_path: Path) -> None:
    refused(tmp_path / "a.heic", make.heic_file(RGB), "HEVC", "PNG or JPEG", never="damaged")


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".heic", ".ppm"])
def test_what_is_read_but_not_written(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match=f"\\{suffix} files are read but not written; use .png"):
        check_target(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(("bits", "tail"), [(10, "yuv"), (12, "yuv")])
def test_avif_of_more_than_8_bits(tmp_path: Path, bits: int, tail: str) -> None:
    deep = np.full((16, 16, 3), 65535, np.uint16)
    image = libvips().Image.new_from_array(deep, interpretation="rgb16")
    image.heifsave(str(tmp_path / "a.avif"), bitdepth=bits, compression="av1", lossless=True)
    found = load_image(tmp_path / "a.avif").pixels
    assert found.dtype == np.uint16
    assert int(found.min()) == 65535  # white is white


# Bits


@pytest.mark.parametrize("largest", [1023, 4095, 65535])
def test_deep_pgm_and_ppm(tmp_path: Path, largest: int) -> None:
    for shape in ((4, 5), (4, 5, 3)):
        values = np.linspace(0, largest, int(np.prod(shape))).astype(int).reshape(shape)
        found = load_image(written(tmp_path / "a", make.pnm_file(values, largest, False))).pixels
        assert found.dtype == np.uint16
        expected = np.floor(values * 65535 / largest + 0.5)
        np.testing.assert_array_equal(found, expected)


def test_pfm_is_bottom_up_and_float(tmp_path: Path) -> None:
    data = b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", 0.5, 2.0, -1.0, 0.25)
    found = load_image(written(tmp_path / "a.pfm", data)).pixels
    np.testing.assert_array_equal(found, np.float32([[-1, 0.25], [0.5, 2]]))


def test_bmp_alpha(tmp_path: Path) -> None:
    found = load_image(written(tmp_path / "a.bmp", make.bmp_file(RGBA, None)))
    np.testing.assert_array_equal(found.pixels, RGBA)
    hidden = RGBA * np.uint8([1, 1, 1, 0])
    found = load_image(written(tmp_path / "a.bmp", make.bmp_file(hidden, None)))
    np.testing.assert_array_equal(found.pixels, hidden[..., :3])
    assert found.notes == ("alpha that hides everything was left out",)


def test_16_bit_lab_and_cmyk_keep_their_bits(tmp_path: Path) -> None:
    lab = np.zeros((4, 4, 3), np.uint16)
    lab[..., 0] = np.linspace(0, 65535, 16).reshape(4, 4)
    data, _ = make.tiff_file(lab, tags={262: ("H", [8])})
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    assert found.dtype == np.uint16
    assert found[-1, -1].min() > 65000
    assert found[0, 0].max() < 500
    assert len(np.unique(found[..., 1])) == 16
    cmyk = np.zeros((4, 4, 4), np.uint16)
    cmyk[..., 3] = np.linspace(0, 65535, 16).reshape(4, 4)
    data, _ = make.tiff_file(cmyk, tags={262: ("H", [5])}, extra=())
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    assert (found.dtype, found.shape) == (np.uint16, (4, 4, 3))
    assert found[0, 0].min() > 60000


def test_white_is_zero(tmp_path: Path) -> None:
    floats = np.float32([[0, 0.25, 1]])
    data, _ = make.tiff_file(floats, tags={262: ("H", [0])})
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    np.testing.assert_array_equal(found, np.float32([[1, 0.75, 0]]))


@pytest.mark.parametrize("bits", [6, 12])
def test_odd_bits_of_tiff_are_not_called_damage(tmp_path: Path, bits: int) -> None:
    data, _ = make.tiff_file(RGB, tags={258: ("H", [bits] * 3)})
    refused(tmp_path / "a.tif", data, f"{bits} bits per channel", never="damaged")


def test_ycbcr_is_not_taken_for_rgb(tmp_path: Path) -> None:
    data, _ = make.tiff_file(RGB, tags={262: ("H", [6]), 530: ("H", [1, 1])})
    refused(tmp_path / "a.tif", data, "YCbCr", "save it as gray or RGB", never="damaged")
    data = make.by_pillow(RGB, "TIFF", compression="jpeg")
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    assert np.abs(found.astype(int) - make.of_pillow(data)).max() <= 1


# Raw files and channels


@pytest.mark.parametrize(
    "tags",
    [
        {50706: ("B", [1, 4, 0, 0])},  # DNG
        {262: ("H", [32803])},  # a colour filter array
        {262: ("H", [34892])},  # linear raw
    ],
)
def test_raw_camera_files(tmp_path: Path, tags: dict) -> None:
    data, _ = make.tiff_file(RGB, tags=tags)
    refused(tmp_path / "a.dng", data, "raw camera file", "export it", never="damaged")


def test_raw_data_in_an_inner_directory(tmp_path: Path) -> None:
    """As NEF and ARW have it: a small picture, and the sensor's data below it."""
    thumbnail, _ = make.tiff_file(RGB[:4, :4], tags={254: ("I", [1]), 330: ("I", [0])})
    sensor, _ = make.tiff_file(RGB[..., 0], tags={262: ("H", [32803])}, first=True)
    pad = len(thumbnail) % 2
    inner = len(thumbnail) + pad
    data = thumbnail.replace(
        struct.pack("<HHII", 330, 4, 1, 0), struct.pack("<HHII", 330, 4, 1, inner)
    )
    data += b"\0" * pad + sensor[8:]
    refused(tmp_path / "a.nef", data, "raw camera file")


def test_a_preview_in_front_is_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    first = PIL.Image.fromarray(RGB[:5, :4])
    first.encoderinfo = {}
    first.save(
        buffer, "TIFF", save_all=True, append_images=[PIL.Image.fromarray(RGB)],
        tiffinfo={254: 1},
    )  # fmt: skip
    data = buffer.getvalue()
    with PIL.Image.open(io.BytesIO(data)) as image:
        reduced = [image.seek(i) or image.tag_v2.get(254, 0) for i in range(2)]
    if reduced == [1, 0]:
        found = load_image(written(tmp_path / "a.tif", data))
        np.testing.assert_array_equal(found.pixels, RGB)
        assert found.notes == ()


@pytest.mark.parametrize("extra", [(0,), ()])
def test_a_fourth_channel_that_is_not_alpha(tmp_path: Path, extra: tuple[int, ...]) -> None:
    data, _ = make.tiff_file(RGBA, extra=extra)
    refused(tmp_path / "a.tif", data, "neither colour nor alpha", "ExtraSamples", never="damaged")


def test_a_fourth_channel_that_is_alpha(tmp_path: Path) -> None:
    data, _ = make.tiff_file(RGBA, extra=(2,))
    np.testing.assert_array_equal(load_image(written(tmp_path / "a.tif", data)).pixels, RGBA)
    alpha = RGBA[..., 3:].astype(float) / 255
    multiplied = np.dstack([np.rint(RGBA[..., :3] * alpha), RGBA[..., 3]]).astype(np.uint8)
    data, _ = make.tiff_file(multiplied, extra=(1,))
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    np.testing.assert_array_equal(found[..., 3], RGBA[..., 3])
    # Division by alpha cannot tell colours apart that were rounded to the same product.
    within = np.ceil(1 / np.maximum(alpha, 1e-3)) + 1
    assert (np.abs(found[..., :3].astype(int) - RGBA[..., :3]) <= within).all()


def test_gray_with_a_channel_of_unknown_meaning(tmp_path: Path) -> None:
    data, _ = make.tiff_file(RGBA[..., :2], extra=(0,))
    refused(tmp_path / "a.tif", data, "neither colour nor alpha")


def test_cmyk_with_alpha(tmp_path: Path) -> None:
    cmyk = np.zeros((4, 4, 5), np.uint8)
    cmyk[..., 4] = 128
    data, _ = make.tiff_file(cmyk, tags={262: ("H", [5])}, extra=(2,))
    found = load_image(written(tmp_path / "a.tif", data)).pixels
    assert found.shape == (4, 4, 4)
    assert (found[..., 3] == 128).all()
    assert found[..., :3].min() > 240


# Frames, names, streams


def test_animated_png(tmp_path: Path) -> None:
    control = make.chunk(b"acTL", struct.pack(">II", 3, 0))
    found = load_image(written(tmp_path / "a.png", make.png_file(RGB, control)))
    assert found.notes == ("only the first of 3 frames was read",)
    np.testing.assert_array_equal(found.pixels, RGB)


def test_several_pictures_in_one_pnm(tmp_path: Path) -> None:
    one = make.pnm_file(RGB, 255, False)
    found = load_image(written(tmp_path / "a.ppm", one + one))
    assert found.notes == ("only the first of several pictures was read",)
    np.testing.assert_array_equal(found.pixels, RGB)


@pytest.mark.parametrize("name", ["a[2].png", "a[page=1].tif", b"caf\xe9.png", "dot..png"])
def test_names(tmp_path: Path, name: str | bytes) -> None:
    text = os.fsdecode(name)
    if sys.platform != "linux" and isinstance(name, bytes):
        pytest.skip("names are Unicode here")
    data = make.tiff_file(RGB)[0] if text.endswith(".tif") else make.png_file(RGB)
    path = written(tmp_path / text, data)
    np.testing.assert_array_equal(load_image(path).pixels, RGB)
    target = tmp_path / f"new {text}"
    save_image(target, Image(RGB))
    np.testing.assert_array_equal(load_image(target).pixels, RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_one_gray_pixel(tmp_path: Path, dtype: type) -> None:
    pixels = np.ones((1, 1), dtype)
    data = make.tiff_file(pixels)[0]
    found = load_image(written(tmp_path / "a", data)).pixels
    assert found.shape == (1, 1)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_a_pipe(tmp_path: Path, kind: str) -> None:
    data = {
        "png": make.png_file(RGB),
        "tiff": make.tiff_file(RGB)[0],
        "ppm": make.pnm_file(RGB, 255, False),
    }[kind]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    found = load_image(tmp_path / "pipe").pixels
    writer.join()
    np.testing.assert_array_equal(found, RGB)


@pytest.mark.parametrize("tag", [256, 257])
def test_a_tiff_that_declares_any_size(tmp_path: Path, tag: int, capfd) -> None:
    data, _ = make.tiff_file(RGB, tags={tag: ("I", [822_083_593])})
    refused(tmp_path / "a.tif", data, "declares too many pixels")
    assert capfd.readouterr().err == ""
