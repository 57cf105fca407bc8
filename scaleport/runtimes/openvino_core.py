"""The one OpenVINO core of a process."""

from __future__ import annotations

import os
from typing import Any

from scaleport.errors import BackendError

_core: tuple[Any, int] | None = None
"""The core and the process that it was made in."""


def shared_core() -> Any:
    """The one OpenVINO core of this process, never freed.

    Its CPU plug-in gives the inferring thread a stack for signal handlers, and frees it with the
    last core; the next signal, even Ctrl-C, would then be handled on freed memory.

    Raises:
        BackendError: if this process was forked from one that has used OpenVINO. Its library keeps
            idle threads for the next graph; they are not there after a fork, and it would wait for
            them for ever.
    """
    global _core
    import openvino

    if _core is None:
        _core = (openvino.Core(), os.getpid())
    core, process = _core
    if process != os.getpid():
        raise BackendError(
            "OpenVINO cannot run in a process that was forked from one that has used it; start "
            "processes with multiprocessing's 'spawn', or load the bundle after the fork only"
        )
    return core
