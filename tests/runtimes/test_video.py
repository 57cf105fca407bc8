"""Videos: every frame upscaled, at its time, with the sound it had."""

from __future__ import annotations

import io
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from numpy_backend import numpy_stages, write_bundle

from scaleport.batch.run import FilesOptions, upscale_files
from scaleport.errors import BackendError, ImageError, OutputError, UsageError
from scaleport.imaging.writing import VideoOptions
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.video import VideoUpscale
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
    work.render(lambda some, all_, _: steps.append((some, all_)))
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
            upscaler,
            [clip],
            str(tmp_path / "out") + "/",
            scale=1.7,
            options=FilesOptions(resume=True),
        )
        (outcome,) = report.outcomes
        assert outcome.error is None
        assert outcome.job.target.name == "clip_x1.7.mkv"
        # 40.8 x 54.4 pixels; sides of a video are even.
        assert outcome.result.output_size == (40, 54)
        assert report.kept == kept


def test_a_stopped_video_leaves_nothing(tmp_path, clip, upscaler):
    def stop(some, all_, text):
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


Use = av.stream.Disposition
NAMED = {"language": "fra", "title": "Original sound"}
CHAPTERS = [
    {"id": 1, "start": 0, "end": 120, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
    {"id": 2, "start": 120, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "B"}},
]


def png(number, height=10, width=14):
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture(number)[:height, :width]).save(buffer, "PNG")
    return buffer.getvalue()


def film(
    path,
    codec="libx264",
    form="yuv420p",
    matrix=None,
    cover=False,
    second=False,
    sounds=(),
    chapters=(),
    title="",
    fonts=(),
    aspect=None,
    frames=5,
):
    """A clip of the frames of ``picture``, with whatever else a video can hold."""
    with av.open(str(path), "w") as made:
        if title:
            made.metadata["title"] = title
        order = ["cover", "film"] if path.suffix == ".mp4" else ["film", "cover"]
        streams = {}
        for what in order:
            if what == "cover" and cover and path.suffix != ".mkv":
                # The stream of the cover comes before that of the film, as some tools write it.
                shown = streams[what] = made.add_stream("png", rate=1)
                shown.width, shown.height, shown.pix_fmt = 14, 10, "rgb24"
                shown.disposition = Use.attached_pic
            elif what == "film":
                video = streams[what] = made.add_stream(codec, rate=25)
                video.width, video.height, video.pix_fmt = 32, 24, form
                if codec == "libx264":
                    video.options = {"crf": "1"}
                if matrix:
                    video.set_display_matrix(matrix)
                if aspect:
                    video.codec_context.sample_aspect_ratio = aspect
        other = None
        if second:
            other = made.add_stream("mpeg4", rate=25)
            other.width, other.height, other.pix_fmt = 16, 16, "yuv420p"
        waves = []
        for metadata, use in sounds:
            wave = made.add_stream("aac", rate=16000)
            wave.codec_context.layout = "mono"
            wave.metadata.update(metadata)
            wave.disposition = use
            waves.append(wave)
        if cover and path.suffix == ".mkv":
            made.add_attachment("cover.png", "image/png", png(9))
        for name in fonts:
            made.add_attachment(name, "application/x-truetype-font", b"a font")
        if chapters:
            made.set_chapters(list(chapters))
        if "cover" in streams:
            packet = av.Packet(png(9))
            packet.stream, packet.pts, packet.dts = streams["cover"], 0, 0
            packet.time_base = Fraction(1, 25)
            made.mux(packet)
        for stream in (video, other):
            for number in range(frames if stream is not None else 0):
                pixels = picture(number)[: stream.height, : stream.width]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                made.mux(stream.encode(frame))
            if stream is not None:
                made.mux(stream.encode())
        for wave in waves:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            made.mux(wave.encode(frame))
            made.mux(wave.encode())
    return path


def upscaled(upscaler, source, target):
    work = VideoUpscale(upscaler, source, target, (2.0, 2.0), options=VideoOptions(crf=1))
    work.render()
    return work.finish()


@pytest.mark.parametrize("target", ["big.mkv", "big.mp4", "big.mov"])
@pytest.mark.parametrize("source", ["clip.mp4", "clip.mkv"])
def test_cover_art_is_not_the_film_and_is_kept(tmp_path, upscaler, source, target):
    result = upscaled(upscaler, film(tmp_path / source, cover=True), tmp_path / target)
    assert result.input_size == (24, 32)
    with av.open(str(tmp_path / target)) as video:
        covers = [s for s in video.streams.video if s.disposition & Use.attached_pic]
        (big,) = [s for s in video.streams.video if not s.disposition & Use.attached_pic]
        assert (big.width, big.height, big.frames or 5) == (64, 48, 5)
        if target.endswith(".mov"):
            assert result.notes == ("left out: cover art, which this container cannot store",)
            return
        assert result.notes == ()
        (cover,) = covers
        (shown,) = list(video.decode(cover))
        np.testing.assert_array_equal(shown.to_ndarray(format="rgb24"), picture(9)[:10, :14])


def test_a_file_of_cover_art_alone_is_no_video(tmp_path, upscaler):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as made:
        cover = made.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 14, 10, "rgb24"
        cover.disposition = Use.attached_pic
        sound = made.add_stream("aac", rate=16000)
        sound.codec_context.layout = "mono"
        packet = av.Packet(png(9))
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 25)
        made.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        made.mux(sound.encode(frame))
        made.mux(sound.encode())
    with pytest.raises(ImageError, match="holds no video, only cover art"):
        VideoUpscale(upscaler, path, tmp_path / "b.mp4", (2.0, 2.0))


# Where the pixel at (x, y) of a frame is shown, as (a, b, c, d) of its display matrix; and the
# same with numpy.
TURNS = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "upside down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "anticlockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "mirrored upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transversed": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_are_shown_as_the_display_matrix_says(tmp_path, upscaler, name, suffix):
    (a, b, c, d), turn = TURNS[name]
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    clip = film(tmp_path / f"clip{suffix}", matrix=matrix, aspect=Fraction(4, 3))
    before, _ = contents_of_film(clip)
    wanted = [turn(pixels) for pixels in before]
    result = upscaled(upscaler, clip, tmp_path / f"big{suffix}")
    after, big = contents_of_film(tmp_path / f"big{suffix}")
    assert result.notes == ()
    assert result.input_size == wanted[0].shape[:2]
    # Four thirds as wide as high; turned by a quarter, three quarters.
    assert big == (Fraction(3, 4) if a == 0 else Fraction(4, 3))
    for small, large in zip(wanted, after, strict=True):
        np.testing.assert_allclose(large, upscaler(np.ascontiguousarray(small), 2), atol=32)
        assert np.abs(large.astype(int) - upscaler(np.ascontiguousarray(small), 2)).mean() < 4


def contents_of_film(path):
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        return frames, video.streams.video[0].sample_aspect_ratio


def test_another_angle_is_said(tmp_path, upscaler):
    third = round((1 << 16) * np.cos(np.pi / 6)), round((1 << 16) * np.sin(np.pi / 6))
    matrix = (third[0], third[1], 0, -third[1], third[0], 0, 0, 0, 1 << 30)
    result = upscaled(upscaler, film(tmp_path / "a.mp4", matrix=matrix), tmp_path / "b.mp4")
    assert [note for note in result.notes if "right angles only" in note]


@pytest.mark.parametrize(
    ("name", "codec", "form", "words"),
    [
        ("a.mov", "qtrle", "argb", ["alpha left out"]),
        ("a.mov", "png", "rgba", ["alpha left out"]),
        ("a.mov", "prores_ks", "yuva444p10le", ["bits became 8", "alpha left out"]),
        ("a.mkv", "ffv1", "yuva420p", ["alpha left out"]),
        ("a.webm", "libvpx-vp9", "yuva420p", ["alpha left out"]),
        ("a.mkv", "ffv1", "gray12le", ["12 bits became 8"]),
        ("a.mkv", "ffv1", "bgr0", []),
        ("a.mkv", "ffv1", "yuv444p", []),
    ],
)
def test_alpha_and_depth_that_are_lost_are_said(tmp_path, upscaler, name, codec, form, words):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    result = upscaled(upscaler, film(tmp_path / name, codec, form), tmp_path / "b.mkv")
    assert len(result.notes) == len(words)
    assert all(word in note for word, note in zip(words, result.notes, strict=True))


@pytest.mark.parametrize("target", ["big.mkv", "big.mp4", "big.mov"])
@pytest.mark.parametrize("source", ["clip.mkv", "clip.mp4"])
def test_languages_titles_uses_and_chapters_are_kept_or_said(tmp_path, upscaler, source, target):
    sounds = [
        ({"language": "eng", "title": "Commentary"}, Use.comment),
        (NAMED, Use.default),
        ({"language": "deu"}, Use.hearing_impaired),
    ]
    clip = film(tmp_path / source, sounds=sounds, chapters=CHAPTERS, title="Holiday")
    result = upscaled(upscaler, clip, tmp_path / target)
    said = " ".join(result.notes)
    with av.open(str(clip)) as before, av.open(str(tmp_path / target)) as after:
        assert after.metadata["title"] == "Holiday"
        assert [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in after.chapters()
        ] == [(0, Fraction(12, 100), "One"), (Fraction(12, 100), Fraction(2, 10), "B")]
        for old, new in zip(before.streams.audio, after.streams.audio, strict=True):
            for value, kept in (
                (old.language, new.language),
                (old.metadata.get("title", old.metadata.get("name")), title_of(new)),
            ):
                assert kept == value or f"({value})" in said
            lost = int(old.disposition & ~new.disposition & ~Use.default)
            assert not lost or "purpose" in said
        defaults = [bool(s.disposition & Use.default) for s in after.streams.audio]
        assert defaults[1]
    if not target.endswith(".mov"):
        # MP4 and Matroska have words of their own for a sound for those who hear badly.
        assert all("the purpose of stream 3 is lost" in note for note in result.notes)


def title_of(stream):
    return stream.metadata.get("title", stream.metadata.get("name"))


def test_fonts_are_kept_and_further_films_are_said(tmp_path, upscaler):
    clip = film(tmp_path / "clip.mkv", second=True, fonts=("a.ttf", "b.ttf"))
    result = upscaled(upscaler, clip, tmp_path / "big.mkv")
    assert result.notes == ("left out: further video",)
    with av.open(str(tmp_path / "big.mkv")) as made:
        fonts = [(s.metadata["filename"], s.data) for s in made.streams if s.type == "attachment"]
    assert fonts == [("a.ttf", b"a font"), ("b.ttf", b"a font")]
    notes = upscaled(upscaler, clip, tmp_path / "big.mp4").notes
    assert set(notes) == {"left out: further video", "left out: attachment (2 streams)"}


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_file_cannot_make_ffmpeg_open_another(tmp_path, upscaler, kind):
    film(tmp_path / "secret.mp4")
    text = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile secret.mp4\n",
    }[kind]
    path = tmp_path / "clip.ts"
    path.write_text(text)
    with pytest.raises(ImageError, match=r"cannot read .*clip\.ts"):
        VideoUpscale(upscaler, path, tmp_path / "b.mp4", (2.0, 2.0))
    name = "concat:secret.mp4"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_bytes((tmp_path / "secret.mp4").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "sub")
        work = VideoUpscale(upscaler, Path(name), tmp_path / "new/deep/b.mp4", (2.0, 2.0))
        work.render()
        assert work.finish().input_size == (24, 32)


def test_tags_that_are_no_text_are_no_crash(tmp_path, upscaler):
    path = film(tmp_path / "clip.mkv", title="Hol-day")
    path.write_bytes(path.read_bytes().replace(b"Hol-day", b"Hol\xfdday"))
    result = upscaled(upscaler, path, tmp_path / "big.mkv")
    assert result.output_size == (48, 64)


def timed(path, times):
    """A clip whose frames are at these times, in milliseconds, in a container that lets them be."""
    with av.open(str(path), "w") as made:
        video = made.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 32, 24, "bgr0"
        packets = []
        for number in range(len(times)):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode()
        for packet, time in zip(packets, times, strict=True):
            packet.pts = packet.dts = time
            packet.time_base = Fraction(1, 1000)
            made.mux(packet)
    return path


def test_frames_at_one_time_are_all_kept_in_order(tmp_path, upscaler):
    clip = timed(tmp_path / "clip.mkv", (0, 40, 40, 80, 120))
    result = upscaled(upscaler, clip, tmp_path / "big.mkv")
    assert result.notes == ("some frames had no time stamp; they got the next one",)
    with av.open(str(tmp_path / "big.mkv")) as video:
        frames = [(round(f.time * 1000), f.to_ndarray(format="rgb24")) for f in video.decode()]
    assert [time for time, _ in frames] == [0, 40, 41, 80, 120]
    means = [pixels[..., 0].mean() for _, pixels in frames]
    assert means == sorted(means)


def test_a_codec_that_refuses_says_why(tmp_path, upscaler, clip):
    odd = film(tmp_path / "clip.ts", "mpeg2video")
    work = VideoUpscale(upscaler, odd, tmp_path / "b.mkv", (2.0, 2.0), None, VideoOptions("mpeg4"))
    with pytest.raises(OutputError, match=r"cannot write .*timebase 1/90000 not supported"):
        work.render()
    work.discard()


def test_a_jump_back_in_time_is_refused_with_what_to_do(tmp_path, upscaler, clip):
    work = VideoUpscale(upscaler, clip, tmp_path / "b.mkv", (2.0, 2.0))
    unit = Fraction(1, 1000)
    given = [work._time(SimpleNamespace(pts=t, time_base=unit)) for t in (5000, 4500, None, 6000)]
    assert given == [5000, 5001, 5041, 6000]
    with pytest.raises(ImageError, match=r"clip\.mkv: its times jump back by 2\.0 s; repair it"):
        work._time(SimpleNamespace(pts=4000, time_base=unit))
