"""Videos: every frame upscaled, at its time, with the sound it had."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest
from numpy_backend import numpy_stages, write_bundle

from scaleport.batch.run import upscale_files
from scaleport.errors import BackendError, ImageError, OutputError, UsageError
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.video import VideoOptions, VideoUpscale
from scaleport.runtimes.view import TilePolicy

av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")

# Milliseconds of a camera that keeps no regular pace.
TIMES = (0, 40, 80, 150, 190, 300, 340, 380)


def picture(number):
    y, x = np.mgrid[:24, :32]
    red = 40 + 20 * number
    return np.stack([np.full_like(y, red), 6 * x, 8 * y], axis=2).clip(0, 255).astype(np.uint8)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as made:
        video = made.add_stream("libx264", rate=25, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = made.add_stream("aac", rate=16000)
        sound.codec_context.layout = "mono"
        for number, time in enumerate(TIMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            made.mux(video.encode(frame))
        made.mux(video.encode())
        wave = np.sin(np.arange(16000 // 2) / 9).astype(np.float32)
        for start in range(0, len(wave) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            made.mux(sound.encode(frame))
        made.mux(sound.encode())
    return path


@pytest.fixture
def upscaler(tmp_path):
    return Upscaler(numpy_stages(write_bundle(tmp_path / "m.bundle")), TilePolicy(tile=16))


def contents(path):
    with av.open(str(path)) as video:
        frames = [
            (round(f.time * 1000), f.to_ndarray(format="rgb24")) for f in video.decode(video=0)
        ]
    with av.open(str(path)) as video:
        sound = [bytes(p) for p in video.demux(video.streams.audio[0]) if p.size]
    return frames, sound


@pytest.mark.parametrize("name", ["big.mkv", "big.mp4", "big.mov"])
def test_frames_times_and_sound(tmp_path, clip, upscaler, name):
    steps = []
    work = VideoUpscale(upscaler, clip, tmp_path / name, (2.0, 2.0), options=VideoOptions(crf=1))
    work.render(lambda some, all_: steps.append((some, all_)))
    assert not (tmp_path / name).exists()
    result = work.finish()
    assert (result.input_size, result.output_size) == ((24, 32), (48, 64))
    before, sound = contents(clip)
    after, copied = contents(tmp_path / name)
    assert [time for time, _ in before] == list(TIMES)
    assert [time for time, _ in after] == list(TIMES)
    assert copied == sound
    assert len(sound) > 5
    for (_, small), (_, large) in zip(before, after, strict=True):
        want = upscaler(small, 2.0).astype(int)
        assert np.abs(large.astype(int) - want).mean() < 4
    assert steps[-1][0] == len(TIMES)
    assert {p.name for p in tmp_path.iterdir()} == {"m.bundle", "clip.mkv", name}


def test_a_folder_of_both_and_resume(tmp_path, clip, upscaler):
    for kept in (0, 1):
        report = upscale_files(
            upscaler, [clip], str(tmp_path / "out") + "/", scale=1.7, resume=True
        )
        (outcome,) = report.outcomes
        assert outcome.error is None
        assert outcome.job.target.name == "clip_x1.7.mkv"
        # 40.8 x 54.4 pixels; sides of a video are even.
        assert outcome.result.output_size == (40, 54)
        assert report.kept == kept


def test_a_stopped_video_leaves_nothing(tmp_path, clip, upscaler):
    def stop(some, all_):
        if some == 3:
            raise KeyboardInterrupt

    work = VideoUpscale(upscaler, clip, tmp_path / "big.mp4", (2.0, 2.0))
    with pytest.raises(KeyboardInterrupt):
        work.render(stop)
    work.discard()
    assert {p.name for p in tmp_path.iterdir()} == {"m.bundle", "clip.mkv"}


def test_refusals(tmp_path, clip, upscaler, monkeypatch):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(ImageError, match="cut"):
        VideoUpscale(upscaler, cut, tmp_path / "b.mp4", (2.0, 2.0))
    with pytest.raises(OutputError, match=r"\.mp4"):
        VideoUpscale(upscaler, clip, tmp_path / "b.png", (2.0, 2.0))
    with pytest.raises(UsageError, match="no codec"):
        VideoUpscale(upscaler, clip, tmp_path / "b.mp4", (2.0, 2.0), options=VideoOptions("abacus"))
    with pytest.raises(UsageError, match="crf"):
        VideoOptions(crf=70)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[video\]'"):
        VideoUpscale(upscaler, clip, tmp_path / "b.mp4", (2.0, 2.0))
