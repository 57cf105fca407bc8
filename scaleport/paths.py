"""Questions about paths that a user gave."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NoReturn

from scaleport.errors import OutputError, UsageError


def holds(question: Callable[[], bool]) -> bool:
    """The answer to a question such as ``path.exists``; no, where the system refuses the path.

    A name may be too long, for one; opening or writing the path then says so.
    """
    try:
        return question()
    except (OSError, ValueError):
        return False


def path_of(given: object, wanted: str, hint: str = "") -> Path:
    """The path that a program gave.

    Args:
        given: a text or a path; anything else is refused.
        wanted: what the path is of, as the subject of "is given by its path".
        hint: what to do instead, behind the message.

    Raises:
        UsageError: if it is something else, such as a picture.
    """
    if isinstance(given, (str, os.PathLike)):
        with contextlib.suppress(TypeError):  # a path of bytes
            return Path(given)
    return _refuse_path(given, wanted, hint)


def _refuse_path(given: object, wanted: str, hint: str) -> NoReturn:
    what = "None" if given is None else f"{type(given).__module__}.{type(given).__name__}"
    raise UsageError(
        f"{wanted} is given by its path, not by {what.removeprefix('builtins.')}{hint}"
    )


_ADDRESS: Final = re.compile(
    r"(?P<kind>[a-z][a-z0-9+.-]+):/+(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)


def address_problem(given: Path | str) -> str:
    """What to say of something such as ``https://...`` where a file is needed; empty for a path.

    A path that exists is one, whatever it is called.
    """
    match = _ADDRESS.fullmatch(str(given))
    if match is None or holds(Path(given).exists):
        return ""
    kind, rest = match["kind"].lower(), match["rest"]
    if kind == "file":
        return f"{given} is an address; give the path alone, /{rest}"
    fetch = f"curl -O {kind}://{rest}" if kind in ("http", "https", "ftp") else "its own tool"
    return f"{kind}://{rest} is an address and not a file; download it first, e.g. with {fetch}"


def similar_name(path: Path, suffix: str = "") -> str:
    """`` (did you mean photo.png?)`` where a file of nearly the same name is beside a missing one.

    Args:
        path: what is not there.
        suffix: the suffix that is meant; empty for any.
    """
    try:
        names = [other.name for other in path.parent.iterdir() if other.name.endswith(suffix)]
    except (OSError, ValueError):
        return ""
    close = get_close_matches(path.name, names, 1, 0.75)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


def same_file_key(path: Path) -> str:
    """Equal for two spellings of one path, such as relative and absolute; links stay apart."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def make_folder(folder: Path) -> list[Path]:
    """Make a folder for outputs, and those above it.

    Returns:
        The folders that were missing, the deepest first, for :func:`remove_empty`.

    Raises:
        OutputError: if the system refuses.
    """
    missing = [path for path in (folder, *folder.parents) if not holds(path.exists)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        remove_empty(missing)
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(
            f"cannot write to {folder}: {why or error}; choose another place"
        ) from error
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that hold nothing; one that lies in another comes first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
