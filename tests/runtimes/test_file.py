"""From file to file: the same pixels as in memory, every kind of picture, and bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy_backend import numpy_stages, write_bundle

from scaleport.errors import ImageError, OutOfMemoryError, OutputError, UsageError
from scaleport.imaging import writing
from scaleport.imaging.files import Image, load_image, save_image
from scaleport.imaging.reading import open_picture
from scaleport.imaging.writing import PictureWriter
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.view import TilePolicy, View

TILED = TilePolicy(tile=7, render_pixels=300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("files") / "query.bundle")


def noise(shape, dtype=np.uint8):
    rng = np.random.default_rng(len(shape))
    if dtype == np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(23, 17), (23, 17, 2), (23, 17, 3), (23, 17, 4)])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_becomes_what_its_pixels_become(
    tmp_path, bundle, shape, dtype, in_memory, monkeypatch
):
    if not in_memory:
        monkeypatch.setattr(writing, "WRITTEN_IN_MEMORY", 100)
    pixels = noise(shape, dtype)
    save_image(tmp_path / "in.tiff", Image(pixels))
    upscaler = Upscaler(numpy_stages(bundle), TILED)
    made = upscale_file(upscaler, tmp_path / "in.tiff", tmp_path / "out.tiff", (2.7, 1.5))
    found = load_image(tmp_path / "out.tiff").pixels
    np.testing.assert_array_equal(found, upscaler(pixels, (2.7, 1.5)))
    assert found.dtype == dtype
    assert (made.input_size, made.output_size) == ((23, 17), found.shape[:2])
    assert {p.name for p in tmp_path.iterdir()} == {"in.tiff", "out.tiff"}


def test_bits_are_a_choice(tmp_path, bundle):
    pixels = noise((9, 8, 3))
    save_image(tmp_path / "in.png", Image(pixels))
    upscaler = Upscaler(numpy_stages(bundle), TILED)
    upscale_file(upscaler, tmp_path / "in.png", tmp_path / "deep.png", 2.5, bits=16)
    deep = load_image(tmp_path / "deep.png").pixels
    assert deep.dtype == np.uint16
    want = upscaler((pixels / np.float32(255)).astype(np.float32), 2.5)
    assert np.abs(deep / 65535 - want).max() <= 1 / 65535
    with pytest.raises(UsageError, match="8, 16 or 32"):
        upscale_file(upscaler, tmp_path / "in.png", tmp_path / "x.png", 2.5, bits=12)
    with pytest.raises(OutputError, match="floats"):
        upscale_file(upscaler, tmp_path / "in.png", tmp_path / "x.png", 2.5, bits=32)
    assert not (tmp_path / "x.png").exists()


def test_opaque_alpha_stays_opaque(tmp_path, bundle):
    pixels = noise((12, 11, 4))
    pixels[..., 3] = 255
    save_image(tmp_path / "in.png", Image(pixels))
    upscaler = Upscaler(numpy_stages(bundle), TILED)
    upscale_file(upscaler, tmp_path / "in.png", tmp_path / "out.png", 2.0)
    assert load_image(tmp_path / "out.png").pixels[..., 3].min() == 255


class _Small:
    """A backend that cannot take more than so many pixels."""

    def __init__(self, session, most):
        self.session, self.most = session, most
        self.device, self.inputs, self.outputs = "small", (), ()
        self.sizes = []

    def run(self, feeds, keep=()):
        if "image" in feeds:
            self.sizes.append(feeds["image"][0, 0].size)
            if feeds["image"][0, 0].size > self.most:
                raise OutOfMemoryError("too much")
        return self.session.run(feeds, keep)


def _limited(bundle, most):
    stages = numpy_stages(bundle)
    stages._sessions["encode"] = _Small(stages.session("encode"), most)
    return stages


def test_memory_that_runs_out_halves_the_tile_and_goes_on(tmp_path, bundle):
    pixels = noise((60, 50, 3))
    save_image(tmp_path / "in.png", Image(pixels))
    stages = _limited(bundle, 500)
    made = upscale_file(
        Upscaler(stages, TilePolicy(tile=0)), tmp_path / "in.png", tmp_path / "out.png", 1.7
    )
    want = View(numpy_stages(bundle), pixels, TilePolicy(tile=0)).render(1.7)
    np.testing.assert_array_equal(load_image(tmp_path / "out.png").pixels, want)
    assert made.tile == 15
    assert made.notes == ("memory ran out; continued with tiles of 15 pixels",)


def test_memory_that_runs_out_in_the_middle_loses_no_row(bundle):
    pixels = noise((64, 20, 3))
    stages = _limited(bundle, 10**9)
    view = View(stages, pixels, TilePolicy(tile=20))
    bands = view.bands(2.0)
    first = next(bands)
    stages._sessions["encode"].most = 300
    made = np.concatenate([first, *bands])
    want = View(numpy_stages(bundle), pixels, TilePolicy(tile=0)).render(2.0)
    np.testing.assert_array_equal(made, want)
    assert view.policy.tile < 20


def test_no_tile_is_small_enough(tmp_path, bundle):
    save_image(tmp_path / "in.png", Image(noise((60, 50, 3))))
    with pytest.raises(OutOfMemoryError):
        upscale_file(
            Upscaler(_limited(bundle, 3), TILED), tmp_path / "in.png", tmp_path / "out.png", 2.0
        )
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]


def test_regions_of_a_file_are_those_of_its_pixels(tmp_path):
    pixels = noise((40, 30, 3), np.uint16)
    save_image(tmp_path / "a.tiff", Image(pixels))
    picture = open_picture(tmp_path / "a.tiff")
    assert picture.shape == (40, 30)
    np.testing.assert_array_equal(picture.read(5, 7, 20, 11), pixels[5:20, 7:11])
    np.testing.assert_array_equal(picture.read(0, 0, 1, 1), pixels[:1, :1])
    np.testing.assert_array_equal(picture.read(), pixels)


def test_a_writer_takes_what_was_announced(tmp_path):
    layout = open_picture(_saved(tmp_path / "a.png", noise((4, 5, 3)))).layout
    with (
        pytest.raises(ImageError, match="3 of 6 rows"),
        PictureWriter(tmp_path / "b.png", 6, 5, layout) as writer,
    ):
        writer.write(noise((3, 5, 3)))
    for band in (noise((3, 4, 3)), noise((7, 5, 3)), noise((3, 5, 3), np.uint16), noise((3, 5))):
        with (
            pytest.raises(ImageError, match="does not fit"),
            PictureWriter(tmp_path / "b.png", 6, 5, layout) as writer,
        ):
            writer.write(band)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def _saved(path, pixels):
    save_image(path, Image(pixels))
    return path


_CHILD = """
import json, re, resource, sys
from pathlib import Path
from scaleport.runtimes.file import upscale_file
from scaleport.runtimes.upscaler import load
bundle, backend, source, target, scale = sys.argv[1:]
upscale_file(load(bundle, backend), source, target, float(scale))
status = Path("/proc/self/status")
if status.exists():
    # What getrusage says includes the process that this one was forked from.
    peak = int(re.search(r"VmHWM:\\s*([0-9]+) kB", status.read_text())[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak * 1024))
"""


def _peak(bundle: Path, backend: str, source: Path, target: Path, scale: float) -> int:
    found = subprocess.run(
        [sys.executable, "-c", _CHILD, str(bundle), backend, str(source), str(target), str(scale)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    return int(json.loads(found.stdout.splitlines()[-1]))


@pytest.mark.long
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_peak_memory_does_not_follow_the_image(tmp_path, backend):
    """2048x2048 at x4 in under 1 GiB, and four times the input in at most a tenth more."""
    from scaleport.export.exporter import export_bundle
    from scaleport.export.plan import ExportOptions
    from scaleport.shipped import find_checkpoint

    pytest.importorskip(backend)
    bundle = tmp_path / "m.bundle"
    options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32",))
    export_bundle(find_checkpoint("igconv-small"), bundle, options)
    peaks = []
    for side, scale in ((2048, 4.0), (4096, 2.0)):
        ramp = np.add.outer(np.arange(side), np.arange(side))[..., None] // np.array([7, 9, 13])
        source = _saved(tmp_path / f"{side}.png", (ramp % 256).astype(np.uint8))
        peaks.append(_peak(bundle, backend, source, tmp_path / "out.png", scale))
        assert open_picture(tmp_path / "out.png").shape == (8192, 8192)
    assert max(peaks) < 1 << 30, peaks
    # It may take less: what a tile makes at x2 is a quarter of that at x4.
    assert peaks[1] <= 1.1 * peaks[0], peaks
