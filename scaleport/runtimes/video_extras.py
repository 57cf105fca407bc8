"""What a video holds beside the frames of its film: sound, titles, chapters, cover art, fonts.

All of it is copied where the new container can hold it; the rest is said in notes. Objects are
those of PyAV, which has no types.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np

_OF_THE_OLD_FILE: Final = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "rotate", "alpha_mode"}
)
"""Entries that describe the file that was read and would be false of the new one."""

_TIMED: Final = ("video", "audio", "subtitle")
_TEXT: Final = "SubtitleHandler"
_IMAGES: Final = {"png": "image/png", "mjpeg": "image/jpeg", "bmp": "image/bmp"}
"""Codecs of cover art, with what Matroska calls them."""


def film_of(video: Any) -> Any | None:
    """The stream that is the film: no cover art, the default one of several; None for none."""
    films = [stream for stream in video.streams.video if not is_cover(stream)]
    return next((s for s in films if "default" in _dispositions(s)), films[0] if films else None)


def is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture that comes with the file, such as an album's cover."""
    return bool({"attached_pic", "timed_thumbnails"} & _dispositions(stream))


def _dispositions(stream: Any) -> set[str]:
    """Names of what a stream is for; the type of the value differs between versions."""
    value = int(getattr(stream, "disposition", 0) or 0)
    kinds = type(stream.disposition) if value else ()
    return {kind.name for kind in kinds if kind.value & value}


@dataclass(frozen=True)
class Turn:
    """How frames are shown: turned by right angles and mirrored, as a display matrix says.

    Attributes:
        transposed: whether rows and columns change places.
        rows: 1, or -1 where the rows of what is shown are in the other order.
        columns: 1 or -1, the same for columns.
        exact: False where the matrix asks for an angle or size that this cannot give.
    """

    transposed: bool = False
    rows: int = 1
    columns: int = 1
    exact: bool = True

    def __call__(self, pixels: Any) -> Any:
        """A frame [H, W, C] as it is shown."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: self.rows, :: self.columns])

    def aspect(self, ratio: Fraction) -> Fraction:
        """The aspect ratio of a pixel after the turn."""
        return 1 / ratio if self.transposed else ratio


def turn_of(frame: Any) -> Turn:
    """How a frame is shown, from its display matrix; as it is without one.

    The matrix of ISO 14496-12 holds a, b, u, c, d, v, x, y, w, and a pixel at (x, y) is shown at
    (ax + cy, bx + dy) but for a shift.
    """
    found = [data for data in frame.side_data if getattr(data.type, "name", "") == "DISPLAYMATRIX"]
    if not found or len(bytes(found[0])) < 36:
        return Turn()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(found[0])[:20], np.int32))
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not straight and not crossed:
        return Turn(exact=False)
    transposed = crossed > straight
    rows, columns = (b, c) if transposed else (d, a)
    rest = max(abs(a), abs(d)) if transposed else max(abs(b), abs(c))
    even = abs(abs(rows) - abs(columns)) <= abs(rows) // 100
    return Turn(
        transposed,
        1 if rows > 0 else -1,
        1 if columns > 0 else -1,
        even and rest <= max(straight, crossed) // 100,
    )


def frame_notes(frame: Any, stream: Any) -> Iterator[str]:
    """What an 8-bit video without alpha does not keep of such frames."""
    depth = max(component.bits for component in frame.format.components)
    if depth > 8:
        yield f"{depth} bits became 8"
    alpha = any(component.is_alpha for component in frame.format.components)
    if alpha or stream.metadata.get("alpha_mode") == "1":
        yield "alpha left out: the new video holds colours only"
    if frame.interlaced_frame:
        yield "interlaced frames were upscaled as whole pictures"
    if not turn_of(frame).exact:
        yield "shown at an angle or size that was not kept: turned by right angles only"


def tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Entries that stay true of the new file; Matroska's statistics are made anew."""
    kept = {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_OLD_FILE
        and not key.startswith(("_STATISTICS", "BPS", "DURATION", "NUMBER_OF_"))
    }
    if "name" in kept and "title" not in kept:
        # QuickTime's word for the title of a stream; its writer takes the common one.
        kept["title"] = kept.pop("name")
    return kept


@dataclass
class Extras:
    """The streams of a video that are copied to a new one.

    Attributes:
        streams: by index in the source, the stream that packets go to; the film is among them.
        notes: what could not be copied.
    """

    streams: dict[int, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def copy_extras(
    video: Any,
    made: Any,
    film: Any,
    errors: tuple[type[Exception], ...],
    reopen: Callable[[], AbstractContextManager[Any]],
) -> Extras:
    """Make a stream for all that is not the film, and copy titles and chapters.

    Args:
        video: the source.
        made: the container that is written, with the stream of the film in it.
        film: the source's stream of the film.
        errors: what PyAV raises where a container cannot hold something.
        reopen: opens the source once more, to read the pictures of its cover.
    """
    extras = Extras()
    dropped: Counter[str] = Counter()
    made.metadata.update(tags(video.metadata))
    chapters = video.chapters() if hasattr(video, "chapters") else []
    with contextlib.suppress(*errors):
        if chapters:
            dropped["chapters"] = 1
            made.set_chapters(chapters)
            dropped["chapters"] = 0
    for stream in video.streams:
        if stream.index == film.index:
            continue
        kind = "cover art" if _is_picture(stream) else stream.type
        if kind == "video":
            dropped["further video"] += 1
        elif kind == "data":
            # Chapters of QuickTime files come as a stream of text, too.
            dropped["data"] += not chapters or stream.metadata.get("handler_name") != _TEXT
        elif kind == "attachment" or (kind == "cover art" and made.format.name == "matroska"):
            dropped[kind] += not _attached(made, stream, errors, reopen)
        else:
            copy = _copied(made, stream, errors)
            if copy is None:
                dropped[kind] += 1
            else:
                extras.streams[stream.index] = copy
    extras.notes += [f"left out: {_counted(kind, count)}" for kind, count in (+dropped).items()]
    return extras


def _counted(kind: str, count: int) -> str:
    return f"{kind} ({count} streams)" if count > 1 else kind


def _copied(made: Any, stream: Any, errors: tuple[type[Exception], ...]) -> Any:
    """A stream like one of the source; None if the container cannot hold it."""
    try:
        copy = made.add_stream_from_template(stream)
    except errors:
        return None
    copy.metadata.update(tags(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def lost(video: Any, made: Any, indices: Sequence[int]) -> list[str]:
    """What the writer of a container dropped without a word, found by reading it again.

    Args:
        video: the source.
        made: the new file, opened for reading.
        indices: of the source's streams that were written, in their order.
    """
    notes = []
    # Chapters and cover art come as streams of their own, at the end.
    written = [s for s in made.streams if s.type in _TIMED and not _is_picture(s)]
    copied = [video.streams[i] for i in indices]
    covers = sum(map(_is_picture, copied)) - sum(map(_is_picture, made.streams))
    for old, new in zip((s for s in copied if not _is_picture(s)), written, strict=False):
        notes += _lost_of(old, new)
    if covers > 0:
        notes.append("left out: cover art, which this container cannot store")
    kept = {key.lower() for key in made.metadata}
    gone = [key for key in tags(video.metadata) if key.lower() not in kept]
    if gone:
        notes.append(f"tags are lost ({', '.join(gone)}): this container cannot store them")
    return notes


def _lost_of(old: Any, new: Any) -> list[str]:
    """What the copy of a stream does not say any more."""
    pairs = {
        "language": (old.language, new.language),
        "title": (tags(old.metadata).get("title"), tags(new.metadata).get("title")),
        "purpose": (_names(_dispositions(old)), _names(_dispositions(new))),
    }
    return [
        f"the {what} of stream {old.index} is lost ({was}): this container cannot store it"
        for what, (was, is_) in pairs.items()
        if was and was != "und" and was != is_
    ]


def _is_picture(stream: Any) -> bool:
    return stream.type == "video" and is_cover(stream)


def _names(dispositions: set[str]) -> str:
    # Which of several streams plays first, every container says in its own way.
    return ", ".join(sorted(dispositions - {"default"}))


def _attached(
    made: Any,
    stream: Any,
    errors: tuple[type[Exception], ...],
    reopen: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Copy a font or cover as an attachment of Matroska; False where that cannot be."""
    if made.format.name != "matroska" or not hasattr(made, "add_attachment"):
        return False
    try:
        if stream.type == "attachment":
            mimetype, data = stream.mimetype or "", stream.data
        else:
            mimetype = _IMAGES.get(stream.codec_context.name, "")
            with reopen() as again:
                data = _cover(again, stream.index)
        suffix = {"image/png": ".png", "image/jpeg": ".jpg", "image/bmp": ".bmp"}.get(mimetype, "")
        name = stream.metadata.get("filename") or f"cover{suffix}"
        if not mimetype or not data:
            return False
        copy = made.add_attachment(name, mimetype, data)
        for key, value in tags(stream.metadata).items():
            copy.metadata.setdefault(key, value)
    except errors:
        return False
    return True


def _cover(video: Any, index: int) -> bytes:
    """The bytes of cover art."""
    for packet in video.demux(video.streams[index]):
        if packet.size:
            return bytes(packet)
    return b""
