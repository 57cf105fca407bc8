"""200 files of mixed kinds in one run: each right, kept, or named with the true reason.

A kind that is read from now on joins by one entry in :data:`KINDS`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest

import scaleport
from scaleport.batch.journal import JOURNAL_NAME
from scaleport.cli.main import main
from scaleport.imaging.files import Image, load_image, save_image


class Kind(NamedTuple):
    """How a file is made.

    ``write`` takes a path and pixels uint8[H, W, 4], and returns the pixels that the file stands
    for; None if it cannot be read. ``reason`` is then what the error has to say. ``near`` is how
    far a lossy format may be from the pixels, in levels of its type.
    """

    suffix: str
    write: Callable[[Path, Any], Any]
    reason: str = ""
    near: int = 0


def plain(pick: Callable[[Any], Any], **options) -> Callable[[Path, Any], Any]:
    """Written by this package."""

    def write(path, pixels):
        save_image(path, Image(pick(pixels)), **options)
        return pick(pixels)

    return write


def pillow(pick: Callable[[Any], Any], mode: str = "", **options) -> Callable[[Path, Any], Any]:
    """Written by Pillow, which says what the file stands for."""

    def write(path, pixels):
        picture = PIL.Image.fromarray(pick(pixels))
        picture = picture.convert(mode) if mode else picture
        picture.save(path, **options)
        with PIL.Image.open(path) as found:
            return np.asarray(found.convert("RGB" if mode == "P" else found.mode))

    return write


def turned(path, pixels):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels[..., :3]).save(path, exif=exif)
    return np.rot90(pixels[..., :3], -1)


def bilevel(path, pixels):
    PIL.Image.fromarray(pixels[..., 0] > 127).save(path)
    return np.where(pixels[..., 0] > 127, 255, 0).astype(np.uint8)


def animated(path, pixels):
    frames = [PIL.Image.fromarray(p).quantize(16) for p in (pixels[..., :3], pixels[::-1, :, :3])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with PIL.Image.open(path) as found:
        return np.asarray(found.convert("RGB"))


def cut(kind: str) -> Callable[[Path, Any], Any]:
    def write(path, pixels):
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels[..., :3]).save(buffer, kind)
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])

    return write


def raw(data: bytes) -> Callable[[Path, Any], Any]:
    def write(path, pixels):
        path.write_bytes(data)

    return write


def floats(path, pixels):
    save_image(path, Image(pixels[..., :3] / np.float32(255)))


def high(pixels):
    return pixels.astype(np.uint16) * 257


rgb, gray = (lambda p: p[..., :3]), (lambda p: p[..., 0])
gray_alpha = lambda p: p[..., [0, 3]]  # noqa: E731

KINDS = {
    "png rgb": Kind(".png", plain(rgb)),
    "png rgba": Kind(".png", plain(lambda p: p)),
    "png gray": Kind(".png", plain(gray)),
    "png gray and alpha": Kind(".png", plain(gray_alpha)),
    "png rgb of 16 bits": Kind(".png", plain(lambda p: high(rgb(p)))),
    "png gray of 16 bits": Kind(".png", plain(lambda p: high(gray(p)))),
    "png palette": Kind(".png", pillow(rgb, "P")),
    "png bilevel": Kind(".png", bilevel),
    "png turned": Kind(".png", turned),
    "jpeg rgb": Kind(".jpg", pillow(rgb, quality=95, subsampling=0), near=3),
    "jpeg gray": Kind(".jpeg", pillow(gray, quality=95), near=3),
    "jpeg progressive": Kind(".JPG", pillow(rgb, subsampling=0, progressive=True), near=3),
    "webp without loss": Kind(".webp", plain(rgb, lossless=True)),
    "webp with alpha": Kind(".webp", plain(lambda p: p | np.uint8([0, 0, 0, 1]), lossless=True)),
    "tiff rgb": Kind(".tif", plain(rgb)),
    "tiff of 16 bits": Kind(".tiff", plain(lambda p: high(rgb(p)))),
    "tiff lzw": Kind(".tif", pillow(rgb, compression="tiff_lzw")),
    "tiff deflate": Kind(".TIFF", pillow(gray, compression="tiff_adobe_deflate")),
    "avif": Kind(".avif", plain(rgb, lossless=True), near=1),
    "gif of two frames": Kind(".gif", animated),
    "bmp": Kind(".bmp", pillow(rgb)),
    "ppm": Kind(".ppm", pillow(rgb)),
    "pgm": Kind(".pgm", pillow(gray)),
    "tiff of floats": Kind(".tif", floats, reason="PNG cannot hold floats"),
    "png that ends early": Kind(".png", cut("PNG"), reason="is damaged"),
    "jpeg that ends early": Kind(".jpg", cut("JPEG"), reason="is damaged"),
    "webp that ends early": Kind(".webp", cut("WEBP"), reason="is damaged"),
    "empty": Kind(".png", raw(b""), reason=r"is empty \(0 bytes\)"),
    "text": Kind(".tif", raw(b"no image, but a letter"), reason="unsupported kind"),
    "pdf": Kind(".jpg", raw(b"%PDF-1.7\n1 0 obj\n"), reason="is PDF; save it as"),
}


@pytest.mark.slow
def test_200_files_of_mixed_kinds(tmp_path, monkeypatch, capsys):
    bundle = Path(scaleport.__file__).parent / "golden/tile.bundle"
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(200)
    wanted, reasons, near = {}, {}, {}
    Path("in/deeper").mkdir(parents=True)
    for number in range(200):
        name, kind = list(KINDS.items())[number % len(KINDS)]
        height, width = 8 + number % 5, 9 + number % 7
        low = rng.integers(0, 256, (3, 3, 4), np.uint8)
        smooth = PIL.Image.fromarray(low).resize((width, height), PIL.Image.Resampling.BICUBIC)
        # Every third of one stem with the file before it, in a folder of their own.
        stem = f"{number - number % 3 // 2:03}"
        path = Path("in/deeper" if number % 4 == 3 else "in") / f"{stem}{kind.suffix}"
        if path.exists():
            path = path.with_stem(f"{stem}b")
        pixels = kind.write(path, np.asarray(smooth))
        if pixels is None:
            reasons[path] = kind.reason
            assert kind.reason, name
        else:
            wanted[path], near[path] = pixels, kind.near
    assert len(wanted) + len(reasons) == 200

    def run() -> dict[str, Any]:
        capsys.readouterr()
        line = f"upscale in -m {bundle} -s 2 -o out -r --resume --json --backend onnxruntime"
        code = main(line.split())
        captured = capsys.readouterr()
        told = json.loads(captured.out)
        assert code == 6
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == len(reasons)
        return told

    told = run()
    failed = {Path(f["input"]): f["error"] for f in told["failures"]}
    assert failed.keys() == reasons.keys()
    for path, reason in reasons.items():
        assert re.search(reason, failed[path]), (path, failed[path])
        assert str(path) in failed[path] or path.stem in failed[path]
    made = {Path(image["input"]): Path(image["output"]) for image in told["images"]}
    assert made.keys() == wanted.keys()
    assert len(set(made.values())) == len(made)
    up = scaleport.load(bundle, "onnxruntime")
    for path, target in made.items():
        found = load_image(target).pixels
        expected = up(wanted[path], 2)
        if path.suffix == ".gif" and found.shape[2] == 4:
            # A later frame may be transparent somewhere; the first is not.
            assert (found[..., 3] == 255).all()
            found = found[..., :3]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), path
        # A level more in the source may be a few in the output of a random network.
        off = np.abs(found.astype(int) - expected.astype(int)).max()
        assert off <= 8 * near[path], (path, off)
        assert target.parent == Path("out") / path.parent.relative_to("in")
    # Nothing else was written, and nothing half.
    files = {p for p in Path("out").rglob("*") if p.is_file() and p.name != JOURNAL_NAME}
    assert files == set(made.values())

    before = {p: p.read_bytes() for p in files}
    again = run()
    assert again["summary"]["kept"] == len(made)
    assert again["summary"]["made"] == 0
    assert {p: p.read_bytes() for p in files} == before
