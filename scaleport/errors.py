"""Every error that Scaleport raises on purpose, in one place.

Each class carries the exit code that the command line returns for it. The message of an
error is one line that says what is wrong and what to do about it; the command line prints
it without a stack trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

LONGEST_MESSAGE = 1900
LONGEST_REASON = 500
"""Characters that are quoted of what another library, or a file, says."""


_SHORTEST = 3
"""Letters from which the beginning of a name may be meant for all of it."""


def one_line(reason: object) -> str:
    """What another library or a file says, fit to be part of a message of one line.

    White space of any kind becomes single spaces, what is not printable its escape, and the rest
    is cut off after :data:`LONGEST_REASON` characters.
    """
    text = " ".join(str(reason).split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: LONGEST_REASON + 1])
    return shown if len(shown) <= LONGEST_REASON else shown[: LONGEST_REASON - 3] + "..."


def first_line(error: BaseException) -> str:
    """The first line of another library's error that says something; its kind if none does."""
    return (_lines(error) or [repr(error)])[0]


def last_line(error: BaseException) -> str:
    """The last line instead, for libraries that put where they were in front of what is wrong."""
    return (_lines(error) or [repr(error)])[-1]


def _lines(error: BaseException) -> list[str]:
    return [line for line in str(error).splitlines() if line.strip()]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` (did you mean png?)`` for what is nearly one of the known names, else nothing."""
    names = list(known)
    longer = [name for name in names if len(given) >= _SHORTEST and name.startswith(given)]
    close = longer or get_close_matches(given, names, 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


class ScaleportError(Exception):
    """Base of all errors that a user can act on. Anything else is a bug (exit code 70).

    Whatever a file or another library put into the message, it is one line of bounded length.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str = "") -> None:
        text = " ".join(message.splitlines())
        super().__init__(text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "...")


class Cancelled(BaseException):
    """The work was ended by its progress function, see :mod:`scaleport.progress`.

    It is not an ``Exception``, so that code which catches failures and continues lets it pass.
    """


class UsageError(ScaleportError, ValueError):
    """An argument is wrong: name, range, shape or file path."""

    exit_code = 2


class ScaleError(UsageError):
    """The requested scale or output size is impossible or outside the model's range."""


class ImageError(UsageError):
    """An input image cannot be read, or an array is not an image."""


class OutputError(UsageError):
    """An output file or directory cannot be written."""


class GateFailed(ScaleportError):
    """A parity or quality gate was not met."""

    exit_code = 1


class BackendError(ScaleportError):
    """A backend is not installed, not usable here, or does not know a graph."""

    exit_code = 3


class PluginError(ScaleportError):
    """An encoder or upsampler of another installed package cannot be used."""

    exit_code = 3


class NotFiniteError(BackendError):
    """A graph returned NaN or infinity; holds the stage and what it was fed, to find where."""

    def __init__(self, message: str, stage: str, feeds: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.stage = stage
        self.feeds = feeds


class ArtifactError(ScaleportError):
    """A bundle, checkpoint or graph is damaged, altered or of an unknown version."""

    exit_code = 4


class ExportError(ScaleportError):
    """A network cannot be exported as asked."""

    exit_code = 4


class LintError(ExportError):
    """An exported graph depends on the size or scale it was traced with."""


class UnsupportedOpError(ExportError):
    """A graph holds an operation that the evaluator or the backend does not know."""


class PartialError(ScaleportError):
    """Some of several inputs failed; the others were done."""

    exit_code = 6


class OutOfMemoryError(ScaleportError):
    """A backend ran out of memory; a smaller tile may help."""

    exit_code = 5
