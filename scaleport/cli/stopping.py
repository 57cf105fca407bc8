"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half written is removed on the way."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED = 128 + signal.SIGINT

_arrived: list[int] = []


class Stopped(BaseException):
    """A signal that ends the process has arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, where they would end the process.

    Raises:
        Stopped: in the block, when one arrives; and at its end, whatever it ended with, if one
            arrived and was swallowed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        del frame
        _arrived.append(number)
        raise Stopped(number)

    known = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    ours = [n for n in known if n is not None and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except Exception:
        raise_again()
        raise
    else:
        raise_again()
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        _arrived.clear()


def raise_again() -> None:
    """Raise for a signal that arrived before.

    An exception that a signal raises inside a finaliser or a callback of the garbage collector is
    printed and dropped. PyTorch's tracer is full of them: an export went on for minutes after a
    SIGTERM, and failed for a graph that the exception had left half traced.

    Raises:
        Stopped: if one arrived.
    """
    if _arrived and threading.current_thread() is threading.main_thread():
        raise Stopped(_arrived[0])
