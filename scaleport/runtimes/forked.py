"""Work in a forked process whose parent had threads.

OpenMP keeps a team of threads for every thread that started one. A forked process has the record
of its parent's team and none of its threads, so that the next parallel loop of the thread that
forked waits for ever. A new thread has no such record, and starts a team of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_workers: ThreadPoolExecutor | None = None


def _forked() -> None:
    global _workers
    _workers = ThreadPoolExecutor(thread_name_prefix="scaleport-forked")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def in_usable_thread(call: Callable[[], T]) -> T:
    """Run a call: in this thread, or in a new one where this process was forked."""
    return call() if _workers is None else _workers.submit(call).result()
