"""How outputs are named after their inputs, and which files are outputs of earlier runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from scaleport.batch.find import Source
from scaleport.batch.journal import Journal
from scaleport.errors import UsageError, did_you_mean
from scaleport.imaging.files import WRITABLE
from scaleport.imaging.kinds import CONTAINERS, is_video

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_TAG: Final = re.compile(
    rf"(?P<stem>.+)_(?:x{_NUMBER}(?:x{_NUMBER})?|(?:fit)?[0-9]+x[0-9]+|(?:w|h|longest)[0-9]+)"
)
"""A stem that ends in what :attr:`scaleport.batch.request.Request.tag` makes."""


def targets(sources: Sequence[Source], folder: Path | None, tag: str, images: str) -> list[Path]:
    """Where the output of each source goes: ``photo.jpg`` becomes ``photo_x2.png``.

    Sources whose outputs would get one name keep their own suffix in it: ``photo.jpg`` beside
    ``photo.png`` becomes ``photo_jpg_x2.png``.

    Args:
        sources: the inputs.
        folder: the folder of the outputs; None for beside each input.
        tag: what is appended, e.g. ``_x2``.
        images: suffix of image outputs, e.g. ``.png``.
    """

    def place(source: Source, stem: str) -> Path:
        parent = source.path.parent if folder is None else folder / source.folder
        return parent / f"{stem}{tag}{_suffix(source.path, images)}"

    plain = [place(source, source.path.stem) for source in sources]
    longer = [place(source, _long_stem(source.path)) for source in sources]
    count, count_of_longer = Counter(plain), Counter(longer)
    # Two files of one name stay a clash, which is for the user to solve.
    return [
        long if count[short] > 1 and count_of_longer[long] == 1 else short
        for short, long in zip(plain, longer, strict=True)
    ]


def earlier_outputs(sources: Iterable[Source]) -> list[Source]:
    """Sources that were found, not named, and are what an earlier run made of another source.

    That is the case of a name such as ``photo_x2.png`` beside a ``photo``, and of such a name
    anywhere if the journal of its folder lists it. A chain is followed: beside ``photo.jpg``,
    ``photo_x2_x3.png`` is an output too, whether or not ``photo_x2.png`` is still there.
    """
    all_ = list(sources)
    beside = {(source.path.parent, stem) for source in all_ for stem in _stems(source.path)}
    anywhere = {stem for _, stem in beside}
    journals: dict[Path, Journal] = {}

    def is_output(source: Source) -> bool:
        path, stem = source.path, source.path.stem
        while (match := _TAG.fullmatch(stem)) is not None:
            stem = match["stem"]
            if (path.parent, stem) in beside:
                return True
            if stem in anywhere:
                if path.parent not in journals:
                    journals[path.parent] = Journal(path.parent)
                return journals[path.parent].lists(path.name)
        return False

    return [source for source in all_ if not source.named and is_output(source)]


def _long_stem(path: Path) -> str:
    return f"{path.stem}_{path.suffix[1:]}" if path.suffix else path.stem


def _stems(path: Path) -> tuple[str, str]:
    return path.stem, _long_stem(path)


def _suffix(source: Path, images: str) -> str:
    """Suffix of an output: a video keeps its container where that can be written."""
    if not is_video(source):
        return images
    return source.suffix if source.suffix.lower() in CONTAINERS else ".mp4"


def checked_suffix(kind: str) -> str:
    """The suffix that ``--format`` names, ``.png`` for none.

    Raises:
        UsageError: if there is no such format.
    """
    suffix = f".{kind.lower().removeprefix('.')}" if kind else ".png"
    if suffix not in WRITABLE:
        known = sorted(name.removeprefix(".") for name in WRITABLE)
        raise UsageError(
            f"unknown image format {kind!r}{did_you_mean(kind.lower(), known)}; "
            f"known: {', '.join(known)}"
        )
    return suffix
