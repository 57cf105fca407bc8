"""Which files a list of images, folders and patterns stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scaleport.errors import ImageError, ScaleportError
from scaleport.imaging.files import WRITABLE
from scaleport.imaging.kinds import VIDEO_SUFFIXES
from scaleport.paths import address_problem, holds, same_file_key, similar_name

READ_SUFFIXES: Final = frozenset(WRITABLE) | {
    ".bmp",
    ".ppm",
    ".pgm",
    ".pnm",
    ".pfm",
    ".gif",
    ".heic",
    ".heif",
}
"""Files that are taken out of a folder; a file that is named itself may be called anything."""


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        path: the file.
        folder: where it lies below the folder or pattern that it was found by.
        named: whether it was named itself.
    """

    path: Path
    folder: Path = Path()
    named: bool = False


def find_sources(
    inputs: Sequence[Path | str], recursive: bool = False
) -> tuple[list[Source], list[tuple[Path, ScaleportError]]]:
    """Files that inputs stand for, those that are named first, each once.

    Args:
        inputs: files, folders of images, or patterns such as ``scans/*.tif`` and ``**/*.png``.
        recursive: take images of the folders within folders, too.

    Returns:
        The sources, and the inputs that stand for nothing, with the reason.
    """
    named: list[Source] = []
    found: list[Source] = []
    failures: list[tuple[Path, ScaleportError]] = []
    for given in inputs:
        path = Path(given)
        try:
            if holds(path.is_dir):
                more = list(_images_in(path, recursive))
                kinds = ", ".join(sorted(READ_SUFFIXES))
                nothing = f"{path} holds no images ({kinds})"
            elif glob.has_magic(str(given)) and not holds(path.exists):
                more = list(_matching(str(given), recursive))
                nothing = f"no image matches {given}"
            else:
                problem = _missing(given, path)
                if problem:
                    failures.append((path, ImageError(problem)))
                else:
                    named.append(Source(path, named=True))
                continue
        except OSError as error:
            failures.append((path, ImageError(f"cannot read {path}: {error.strerror or error}")))
            continue
        if not more:
            failures.append((path, ImageError(nothing)))
        found.extend(more)
    kept: dict[str, Source] = {}
    for source in (*named, *found):
        kept.setdefault(same_file_key(source.path), source)
    return list(kept.values()), failures


def _missing(given: Path | str, path: Path) -> str:
    """What is wrong with a named file that is not there; reading says what else can be wrong."""
    problem = address_problem(given)
    if problem or str(given) == "-" or holds(lambda: os.path.lexists(path)):
        return problem
    try:
        path.lstat()
    except FileNotFoundError:
        return f"cannot read {path}: there is no such file{similar_name(path)}"
    except (OSError, ValueError):
        return ""
    return ""


def _images_in(folder: Path, recursive: bool, below: Path | None = None) -> Iterator[Source]:
    """Images of a folder, sorted; folders behind links and hidden ones are not entered."""

    def refuse(error: OSError) -> None:
        raise error

    below = below or Path()
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(n for n in folders if not n.startswith(".")) if recursive else []
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in READ_SUFFIXES:
                yield Source(Path(place) / name, below / Path(place).relative_to(folder))


def _matching(pattern: str, recursive: bool) -> Iterator[Source]:
    """What a pattern matches, sorted; a folder that matches stands for its images."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[: min(fixed, len(parts) - 1)])
    # A pattern that spells its suffix out means that; otherwise images are meant.
    suffix = Path(parts[-1]).suffix
    spelled = bool(suffix) and not glob.has_magic(suffix)
    # Path.glob takes no absolute patterns.
    for match in sorted(map(Path, glob.iglob(pattern, recursive=True))):  # noqa: PTH207
        if match.is_dir():
            if "**" not in parts:
                yield from _images_in(match, recursive, match.relative_to(root))
        elif spelled or match.suffix.lower() in READ_SUFFIXES | VIDEO_SUFFIXES:
            yield Source(match, match.parent.relative_to(root))
