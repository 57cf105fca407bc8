"""From video file to video file, frame by frame, through PyAV (extra ``video``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from scaleport.atomic import Pending
from scaleport.errors import BackendError, ImageError, OutputError, UsageError, one_line
from scaleport.imaging.kinds import CONTAINERS
from scaleport.imaging.writing import VideoOptions
from scaleport.paths import make_folder
from scaleport.progress import Progress, silent
from scaleport.runtimes.file import FileResult
from scaleport.runtimes.scales import Fit, checked_grid, fitted, stretch_note
from scaleport.runtimes.upscaler import Upscaler
from scaleport.runtimes.video_extras import (
    copy_extras,
    film_of,
    frame_notes,
    is_cover,
    lost,
    tags,
    turn_of,
)
from scaleport.runtimes.view import View

_DEMUXERS: Final = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,flv,asf,ogg,mxf,nut,dv"
"""Formats that are read, whatever the file is called: none of them names further files."""


class VideoUpscale:
    """The upscaling of one video in the steps of :class:`scaleport.runtimes.file.FileUpscale`.

    Frames keep their time stamps; audio, subtitles, titles, languages, chapters and cover art are
    copied as they are. Colours are 8 bits without alpha; rotation and mirroring are undone; an odd
    side of the output loses its last pixel, as 4:2:0 needs. Notes say what was not kept.

    Args:
        upscaler: model and backend.
        source: video file.
        target: video file to write; its suffix chooses the container, see :data:`CONTAINERS`.
        scale: (scale_y, scale_x), or None if ``size`` is given.
        size: output size (height, width), or limits that the film's shape is fitted into; None if
            ``scale`` is given.
        options: codec and quality.

    Raises:
        BackendError: if PyAV is not installed.
        ImageError: if the source cannot be read or holds no video.
        OutputError: if the container is not known.
        ScaleError: if the scale or size is out of range.
        UsageError: if the codec is not known.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        source: Path,
        target: Path,
        scale: tuple[float, float] | None = None,
        size: tuple[int, int] | Fit | None = None,
        options: VideoOptions | None = None,
    ) -> None:
        self._av = _pyav()
        self._upscaler, self._source, self._target = upscaler, source, target
        self._options = options or VideoOptions()
        if target.suffix.lower() not in CONTAINERS:
            raise OutputError(f"cannot write {target}: use one of {', '.join(CONTAINERS)}")
        if self._options.codec not in self._av.codecs_available:
            raise UsageError(f"FFmpeg has no codec {self._options.codec!r} here; try libx264")
        self._new = Pending(target, follow=False)
        self._cancelled = False
        self._notes: list[str] = []
        self._last_time: int | None = None
        self._rate = Fraction(25)
        with self._opened() as video:
            film = self._film(video)
            first = self._first_frame(video, film)
            self._turn = turn_of(first)
            height, width = self._pixels(first).shape[:2]
            shape = (int(height), int(width))
            self._notes += frame_notes(first, film)
        grid = checked_grid(upscaler.manifest, *shape, scale, fitted(size, shape))
        if isinstance(size, tuple):
            self._notes += stretch_note(shape, size)
        height, width = (max(2, n - n % 2) for n in grid.output_size)
        if (height, width) != grid.output_size:
            self._notes.append(f"made {width}x{height}: video sides are even")
        self._result = FileResult(shape, (height, width), (), 0)

    def preload(self) -> None:
        """Nothing: frames are decoded as they are needed."""

    def render(self, progress: Progress | None = None) -> None:
        """Upscale all frames and copy what is not video."""
        make_folder(self._target.parent)
        with self._opened() as video:
            with self._writing():
                settings = {"movflags": "faststart"} if self._container != "matroska" else {}
                made = self._av.open(
                    str(self._new.path), "w", format=self._container, options=settings
                )
            try:
                streams = self._copy(video, made, progress or silent)
            finally:
                with self._writing():
                    made.close()
            with self._writing(), self._av.open(str(self._new.path)) as written:
                self._notes += lost(video, written, streams)

    def finish(self) -> FileResult:
        """Put the video under its name."""
        with self._writing():
            if self._cancelled:
                raise OutputError(f"{self._target} is not written: the program was stopped")
            self._new.commit()
        return replace(self._result, notes=tuple(dict.fromkeys(self._notes)))

    def cancel(self) -> None:
        """Have :meth:`finish` fail."""
        self._cancelled = True

    def discard(self) -> None:
        """Drop everything but a finished target."""
        self._new.discard()

    @property
    def _container(self) -> str:
        return CONTAINERS[self._target.suffix.lower()]

    def _copy(self, video: Any, made: Any, progress: Progress) -> list[int]:
        """Write everything; the streams of the source that were, by index, in their order."""
        source = self._film(video)
        source.thread_type = "AUTO"
        with self._writing():
            target = self._stream(source, made)
            errors = (self._av.FFmpegError, ValueError, AttributeError)
            extras = copy_extras(video, made, source, errors, self._opened)
        self._notes += extras.notes
        copies = extras.streams
        done, total = 0, _frames(video, source)
        for packet in video.demux(source, *(video.streams[i] for i in copies)):
            if packet.stream.index in copies:
                cover = is_cover(packet.stream)
                if packet.size and cover:
                    # A picture that comes with the file has no time.
                    packet.pts = packet.dts = 0
                if packet.dts is not None and packet.size:
                    packet.stream = copies[packet.stream.index]
                    with self._writing():
                        made.mux(packet)
                continue
            for frame in packet.decode():
                big = self._upscaled(frame, target.codec_context.pix_fmt)
                with self._writing():
                    made.mux(target.encode(big))
                done += 1
                progress(done, max(done, total), "")
        with self._writing():
            made.mux(target.encode())
        return [source.index, *copies]

    def _stream(self, source: Any, made: Any) -> Any:
        """The video stream to be, described as the source's is."""
        options = {"crf": str(self._options.crf)} if "26" in self._options.codec else {}
        self._rate = source.average_rate or self._rate
        stream = made.add_stream(self._options.codec, rate=self._rate, options=options)
        context, given = stream.codec_context, source.codec_context
        context.height, context.width = self._result.output_size
        context.pix_fmt = "yuv420p"
        context.time_base = source.time_base
        if given.sample_aspect_ratio:
            context.sample_aspect_ratio = self._turn.aspect(given.sample_aspect_ratio)
        stream.metadata.update(tags(source.metadata))
        stream.disposition = source.disposition
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, name, getattr(given, name))
        return stream

    def _upscaled(self, frame: Any, form: str) -> Any:
        pixels = self._pixels(frame)
        if pixels.shape[:2] != self._result.input_size:
            raise ImageError(f"{self._source}: frames of several sizes are not supported")
        made = self._av.VideoFrame.from_ndarray(self._large(pixels), format="rgb24")
        made = made.reformat(
            format=form, dst_colorspace=frame.colorspace, dst_color_range=frame.color_range
        )
        made.pts, made.time_base = self._time(frame), frame.time_base
        return made

    def _time(self, frame: Any) -> int:
        """The time of a frame in its own unit: later than that of the frame before.

        Raises:
            ImageError: if it is more than a second earlier.
        """
        pts, last = frame.pts, self._last_time
        if pts is None or (last is not None and pts <= last):
            self._notes.append("some frames had no time stamp; they got the next one")
            # Without any times, as in a bare stream of MPEG, frames follow at the rate of the film.
            step = 1 if pts is not None else max(1, round(1 / (self._rate * frame.time_base)))
            if pts is not None and (last - pts) * frame.time_base > 1:
                raise ImageError(
                    f"{self._source}: its times jump back by "
                    f"{float((last - pts) * frame.time_base):.1f} s; repair it first, e.g. with "
                    "ffmpeg -fflags +genpts -i FILE -c copy NEW.mkv"
                )
            pts = 0 if last is None else last + step
        self._last_time = pts
        return int(pts)

    def _large(self, pixels: Any) -> Any:
        """What the model makes of a frame: uint8 of the output's size."""
        policy = replace(self._upscaler.policy, cache_bytes=0)
        view = View(self._upscaler.stages, pixels, policy)
        large = view.render(size=self._result.output_size)
        if view.policy.tile != policy.tile:
            self._notes.append(f"memory ran out; continued with tiles of {view.policy.tile} pixels")
        self._result = replace(self._result, tile=view.policy.tile or 0)
        return large

    def _pixels(self, frame: Any) -> Any:
        """uint8 [H, W, 3], as it is shown."""
        return self._turn(frame.to_ndarray(format="rgb24"))

    def _film(self, video: Any) -> Any:
        film = film_of(video)
        if film is None:
            only = ", only cover art" if video.streams.video else ""
            raise ImageError(f"{self._source} holds no video{only}")
        return film

    def _first_frame(self, video: Any, film: Any) -> Any:
        for frame in video.decode(film):
            return frame
        raise ImageError(f"{self._source} holds no frame")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The source, opened by what it holds; it cannot make FFmpeg open anything else."""
        # Without "file:", a name such as "concat:a" would be a protocol.
        name, options = f"file:{self._source}", {"protocol_whitelist": "file"}
        options["format_whitelist"] = _DEMUXERS
        with (
            self._reading(),
            self._av.open(name, options=options, metadata_errors="replace") as video,
        ):
            yield video

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            raise ImageError(f"cannot read {self._source}: {_said(error)}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (self._av.FFmpegError, OSError) as error:
            raise OutputError(f"cannot write {self._target}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What FFmpeg says: the kind of error, and what its codec or format logged about it."""
    log = getattr(error, "log", None)
    why = f" ({one_line(log[2])})" if log and str(log[2]).strip() else ""
    return f"{getattr(error, 'strerror', None) or error}{why}"


def _frames(video: Any, stream: Any) -> int:
    """Number of frames, as far as the file says; 1 if it does not."""
    if stream.frames:
        return int(stream.frames)
    if video.duration and stream.average_rate:
        return max(1, int(video.duration / 1e6 * float(stream.average_rate)))
    return 1


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise BackendError(
            "video needs av, which is not installed: pip install 'scaleport[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)
    return av
