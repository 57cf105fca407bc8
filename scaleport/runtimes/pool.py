"""What only one caller can use at a time, for many callers: made when needed, handed around."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from scaleport.errors import BackendError

T = TypeVar("T")


class Pool(Generic[T]):
    """Objects of one kind. A caller gets one that nobody else has, and gives it back.

    Args:
        make: makes a further object.
        most: how many there are at most; callers beyond that wait for one to be given back. 0 for
            no limit.
        what: what a closed pool is called in the error.
    """

    def __init__(self, make: Callable[[], T], most: int = 0, what: str = "session") -> None:
        self._make = make
        self._most = most
        self._what = what
        self._free: list[T] = []
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def borrowed(self) -> Iterator[T]:
        """An object for the time of a ``with`` block.

        Raises:
            BackendError: if the pool is closed.
        """
        item = self._take()
        try:
            yield item
        finally:
            self._give(item)

    def _take(self) -> T:
        with self._changed:
            while True:
                if self._closed:
                    raise BackendError(f"the {self._what} is closed; load the bundle again")
                if self._free:
                    return self._free.pop()
                if not self._most or self._count < self._most:
                    self._count += 1
                    break
                self._changed.wait()
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def _give(self, item: T) -> None:
        with self._changed:
            if self._closed:
                self._count -= 1
            else:
                self._free.append(item)
            self._changed.notify()

    def close(self) -> list[T]:
        """Take no further callers; those that wait fail.

        Returns:
            The objects that nobody was using. The others are dropped when they are given back.
        """
        with self._changed:
            self._closed = True
            free, self._free = self._free, []
            self._count -= len(free)
            self._changed.notify_all()
            return free
