"""How outputs are named after their inputs, and which files are outputs of earlier runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scaleport.batch.journal import Journal
from scaleport.imaging.kinds import CONTAINERS, is_video

if TYPE_CHECKING:
    from scaleport.batch.plan import Source

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_TAG: Final = re.compile(
    rf"(?P<stem>.+)_(?:x{_NUMBER}(?:x{_NUMBER})?|(?:fit)?[0-9]+x[0-9]+|(?:w|h|longest)[0-9]+)"
)
"""A stem that ends in what :attr:`scaleport.batch.work.Request.tag` makes."""


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
