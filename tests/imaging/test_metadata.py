"""What a file says about its picture stays true in the output, or a note says that it is gone."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pictures as make
import PIL.Image
import pytest

from scaleport.imaging import xmp
from scaleport.imaging.files import Image, Metadata, load_image, save_image
from scaleport.imaging.metadata import left_out

RGB = make.noise(20, 16, 3, np.uint8, 1)
TARGETS = ("out.png", "out.jpg", "out.tif", "out.webp", "out.avif")


def loaded(path: Path, data: bytes) -> Image:
    path.write_bytes(data)
    return load_image(path)


def dpi(path: Path) -> tuple[float, float] | None:
    """As Pillow reads it: of the file, or of EXIF."""
    with PIL.Image.open(path) as image:
        found = image.info.get("dpi")
        exif = image.getexif()
        if found is None and 282 in exif:
            found = (float(exif[282]), float(exif[283]))
    return found and tuple(float(value) for value in found)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["png", "jpg", "tif", "bmp"])
def test_density_is_kept(tmp_path: Path, source: str, target: str) -> None:
    density = (300.0, 150.0)
    data = {
        "png": lambda: make.png_file(RGB, make.phys(density)),
        "jpg": lambda: make.by_pillow(RGB, "JPEG", dpi=density),
        "tif": lambda: make.tiff_file(RGB, density=density)[0],
        "bmp": lambda: make.bmp_file(RGB, density),
    }[source]()
    image = loaded(tmp_path / f"in.{source}", data)
    save_image(tmp_path / target, image)
    np.testing.assert_allclose(dpi(tmp_path / target), density, rtol=2e-3)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("exif", [b"", make.exif(6)])
def test_no_density_is_made_up(tmp_path: Path, target: str, exif: bytes) -> None:
    extra = [make.chunk(b"eXIf", exif)] if exif else []
    image = loaded(tmp_path / "in.png", make.png_file(RGB, *extra))
    assert image.metadata.density is None
    save_image(tmp_path / target, image)
    # 72 is what EXIF has for a density that is not known.
    assert dpi(tmp_path / target) in (None, (72.0, 72.0) if exif else None, (1.0, 1.0))
    assert load_image(tmp_path / target).metadata.density is None


def test_density_turns_with_the_picture(tmp_path: Path) -> None:
    data = make.png_file(RGB, make.chunk(b"eXIf", make.exif(6)), make.phys((300, 150)))
    save_image(tmp_path / "out.png", loaded(tmp_path / "in.png", data))
    np.testing.assert_allclose(dpi(tmp_path / "out.png"), (150, 300), rtol=1e-3)


PACKET = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:t="http://ns.adobe.com/tiff/1.0/" t:Orientation="6"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:Rating="4" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:FullPanoWidthPixels="4000"
 GPano:ProjectionType="equirectangular"
 xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0">
<exif:PixelXDimension>16</exif:PixelXDimension><t:ImageLength>20</t:ImageLength>
<GPano:CroppedAreaImageHeightPixels>20</GPano:CroppedAreaImageHeightPixels>
<GPano:CroppedAreaTopPixels>7.0</GPano:CroppedAreaTopPixels>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Caf\xc3\xa9 &amp; bar</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def test_xmp_of_a_picture_that_was_turned() -> None:
    packet = xmp.make_true(PACKET, True, (20, 16), (50, 40))
    text = packet.data.decode()
    assert 't:Orientation="1"' in text
    assert "<exif:PixelXDimension>40<" in text
    assert "<t:ImageLength>50<" in text
    assert 'xmp:Rating="4"' in text
    assert "Café &amp; bar" in text
    assert text.startswith("<?xpacket begin")
    assert "GPano:Full" not in text  # which would be the other way round
    assert packet.left_out == (
        "panorama data, which do not fit a picture that was turned",
        "a gain map (HDR)",
    )


def test_panorama_grows_with_the_picture() -> None:
    text = xmp.make_true(PACKET, False, (20, 16), (54, 40)).data.decode()
    assert 't:Orientation="6"' in text  # the file's word against EXIF's, as before
    assert 'GPano:FullPanoWidthPixels="10000"' in text
    assert "<GPano:CroppedAreaImageHeightPixels>54<" in text
    assert "<GPano:CroppedAreaTopPixels>19<" in text
    assert 'GPano:ProjectionType="equirectangular"' in text
    assert "hdrgm:" not in text.replace("xmlns:hdrgm", "")


def test_regions_of_faces() -> None:
    packet = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><a
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"><mwg-rs:Regions>
<mwg-rs:AppliedToDimensions stDim:w="16" stDim:h="20" stDim:unit="pixel"/></mwg-rs:Regions>
</a></x:xmpmeta>"""
    text = xmp.make_true(packet, False, (20, 16), (40, 32)).data.decode()
    assert 'stDim:w="32"' in text
    assert 'stDim:h="40"' in text
    assert "AppliedTo" not in xmp.make_true(packet, True, (20, 16), (40, 32)).data.decode()


@pytest.mark.parametrize(
    "packet",
    [
        b"http://ns.adobe.com/tiff/1.0/ <broken",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a xmlns:t="http://ns.adobe.com/tiff/1.0/">&b;</a>',
        b'<a xmlns:G="http://ns.google.com/photos/1.0/panorama/" G:FullPanoWidthPixels="nan"/>',
        b'<a xmlns:G="http://ns.google.com/photos/1.0/panorama/" G:FullPanoWidthPixels="wide"/>',
    ],
)
def test_xmp_that_cannot_be_read(packet: bytes) -> None:
    found = xmp.make_true(packet, False, (2, 2), (4, 4))
    assert found.data is None
    assert found.left_out == ("an XMP block that cannot be read",)


@pytest.mark.parametrize("target", ["out.png", "out.jpg", "out.tif", "out.webp", "out.avif"])
def test_xmp_is_upright_in_files(tmp_path: Path, target: str) -> None:
    data = make.by_pillow(RGB, "WEBP", xmp=PACKET, exif=b"Exif\0\0" + make.exif(6), lossless=True)
    image = loaded(tmp_path / "in.webp", data)
    assert image.metadata.turned
    save_image(tmp_path / target, image)
    packet = bytes(load_image(tmp_path / target).metadata.fields["xmp-data"])
    assert b'Orientation="1"' in packet
    notes = left_out(image.metadata, "JPEG", make_layout(image), (20, 16))
    assert any("panorama" in note for note in notes)


def make_layout(image: Image):
    from scaleport.imaging.convert import layout_of

    return layout_of(image.pixels)


def text_chunks() -> list[bytes]:
    return [
        make.chunk(b"tEXt", b"parameters\0a cat, Steps: 20"),
        make.chunk(b"tEXt", b"Titr\xe9\0caf\xe9"),
        make.chunk(b"iTXt", b"Author\0\0\0de\0\0J\xc3\xb6rg"),
        make.chunk(b"zTXt", b"Comment\0\0x\x9c\x03\x00\x00\x00\x00\x01"),
    ]


def test_text_of_png(tmp_path: Path) -> None:
    """Also keywords in Latin-1, which libvips hands out as broken UTF-8."""
    texts = text_chunks()
    image = loaded(tmp_path / "in.png", make.png_file(RGB, *texts))
    np.testing.assert_array_equal(image.pixels, RGB)
    save_image(tmp_path / "out.png", image)
    data = (tmp_path / "out.png").read_bytes()
    for text in texts:
        assert data.count(text) == 1
    with PIL.Image.open(tmp_path / "out.png") as again:
        assert again.text["parameters"] == "a cat, Steps: 20"
        np.testing.assert_array_equal(np.asarray(again), RGB)
    (note,) = left_out(image.metadata, "JPEG", make_layout(image), (20, 16))
    assert note == "JPEG keeps no text of PNG: parameters, Titré, Author, Comment"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_gamma_of_png(tmp_path: Path) -> None:
    linear = make.chunk(b"gAMA", struct.pack(">I", 100_000))
    image = loaded(tmp_path / "in.png", make.png_file(RGB, linear))
    save_image(tmp_path / "out.png", image)
    assert linear in (tmp_path / "out.png").read_bytes()
    notes = left_out(image.metadata, "TIFF", make_layout(image), (20, 16))
    assert notes == ("TIFF cannot state the gamma, primaries or HDR of the source, not sRGB",)
    usual = make.chunk(b"gAMA", struct.pack(">I", 45_455))
    image = loaded(tmp_path / "in.png", make.png_file(RGB, usual))
    assert left_out(image.metadata, "TIFF", make_layout(image), (20, 16)) == ()


def test_sizes_in_exif(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0100], exif[0x0101], exif[0x013B] = 16, 20, "J\u00f6rg"
    exif[0x8769] = {0xA002: 16, 0xA003: 20, 0x9286: b"ASCII\0\0\0a cat, Steps: 20"}
    image = loaded(tmp_path / "in.jpg", make.by_pillow(RGB, "JPEG", exif=exif))
    twice = Image(np.repeat(np.repeat(image.pixels, 2, 0), 3, 1), image.metadata)
    save_image(tmp_path / "out.jpg", twice)
    with PIL.Image.open(tmp_path / "out.jpg") as again:
        found = again.getexif()
        details = found.get_ifd(0x8769)
    assert (found[0x0100], found[0x0101]) == (48, 40)
    assert (details[0xA002], details[0xA003]) == (48, 40)
    assert details[0x9286] == b"ASCII\0\0\0a cat, Steps: 20"


def test_descriptions_that_state_sizes(tmp_path: Path) -> None:
    for text, kept in (("A cat", True), ("ImageJ=1.53t\nimages=1", False), ("<?xml v?>", False)):
        image = Image(RGB, Metadata({"image-description": text}))
        save_image(tmp_path / "out.tif", image)
        assert ("image-description" in load_image(tmp_path / "out.tif").metadata.fields) == kept
        notes = left_out(image.metadata, "TIFF", make_layout(image), (20, 16))
        assert notes == (
            () if kept else ("the image description, which states the former size, is left out",)
        )


def test_notes_about_blocks(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(RGB).save(buffer, "JPEG", exif=make_exif(), comment=b"hello")
    image = loaded(tmp_path / "in.jpg", buffer.getvalue())
    assert image.notes == ("comments were left out",)
    layout = make_layout(image)
    assert left_out(image.metadata, "TIFF", layout, (20, 16)) == ("TIFF keeps no EXIF block",)
    assert left_out(image.metadata, "PNG", layout, (20, 16)) == ()


def make_exif() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x010F] = "Maker"
    return exif


def test_hdr_of_avif(tmp_path: Path) -> None:
    data = make.by_pillow(RGB, "AVIF")
    at = data.index(b"colrnclx") + 8
    assert loaded(tmp_path / "in.avif", data).metadata.chunks == ()
    hdr = data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]  # BT.2020, PQ
    image = loaded(tmp_path / "in.avif", hdr)
    save_image(tmp_path / "out.png", image)
    assert make.chunk(b"cICP", b"\x09\x10\0\1") in (tmp_path / "out.png").read_bytes()
    assert left_out(image.metadata, "JPEG", make_layout(image), (20, 16)) == (
        "JPEG cannot state the gamma, primaries or HDR of the source, not sRGB",
    )
