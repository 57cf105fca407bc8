"""How far a long piece of work is: one protocol for programs and for the command line's bars.

::

    def show(done, total, text):
        print(f"{done} of {total or '?'} {text}")

    scaleport.export("scaleport-s", progress=show)

Work is cancelled through the same door: whatever a progress function raises ends the work, removes
what is half written, and reaches the caller. :class:`Cancellation` does that for another thread.
"""

from __future__ import annotations

import threading
from typing import Protocol

from scaleport.errors import Cancelled


class Progress(Protocol):
    """Called before each piece of work, and at the end of countable work.

    Raise :class:`scaleport.Cancelled` to end the work. Another exception ends it too, but where
    one of several inputs may fail, such as an image of :func:`scaleport.upscale_files`, that is a
    failure of this input only.
    """

    def __call__(self, done: float, total: float | None, text: str, /) -> None:
        """Take note.

        Args:
            done: how much is done. It falls only where other work begins, with a total of its own.
            total: how much there is to do, in the same unit; None if that is not known.
            text: what is being done now; empty if there is nothing to say.
        """


def silent(done: float, total: float | None, text: str, /) -> None:
    """The progress function of those who do not ask."""


class Steps:
    """Tells of work whose length is not known beforehand: counts its steps.

    Args:
        progress: whom to tell.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress, self._count = progress or silent, 0
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        """A step begins, in any thread."""
        with self._lock:
            done, self._count = self._count, self._count + 1
        self._progress(done, None, text)


def part(progress: Progress, start: float, stop: float, total: float, text: str) -> Progress:
    """The progress of a piece of larger work, which lies from ``start`` to ``stop`` of ``total``.

    Args:
        progress: told of the larger work.
        start: what of it is done before the piece.
        stop: what of it is done after the piece.
        total: all of it.
        text: said where the piece itself says nothing.
    """

    def tell(done: float, whole: float | None, said: str, /) -> None:
        share = done / whole if whole else 0.0
        progress(start + share * (stop - start), total, said or text)

    return tell


class Cancellation:
    """A progress function that lets another thread end the work.

    ::

        work = scaleport.Cancellation(show)
        button.on_click(work.cancel)
        scaleport.upscale_file(upscaler, "in.png", "out.png", scale=2, progress=work)

    Args:
        progress: function that receives the progress; may be left out.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or silent
        self._asked = threading.Event()

    def cancel(self) -> None:
        """End the work at its next report of progress. Any thread may call this."""
        self._asked.set()

    @property
    def cancelled(self) -> bool:
        """Whether the work has been told to end."""
        return self._asked.is_set()

    def __call__(self, done: float, total: float | None, text: str, /) -> None:
        """Tell of progress.

        Raises:
            Cancelled: if the work has been asked to end; every later call raises it too.
        """
        if self.cancelled:
            raise Cancelled
        self._progress(done, total, text)
