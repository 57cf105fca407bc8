"""The modules that a command passes through, in the order in which each is first called.

``python -m tools.walk upscale photo.png -m NAME.bundle -o out.png`` runs the command and prints one
line per module of the package: its name, and the module that called it first. Importing a module
does not count, calling a function of it does. ``docs/architecture.md`` shows two such walks.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

PACKAGE = "scaleport"


class Walk:
    """Records first calls into the modules of the package, in all threads."""

    def __init__(self) -> None:
        self.passed: dict[str, str] = {}
        """Module to the module that called it first."""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Look at one event of the interpreter, see :func:`sys.setprofile`."""
        del argument
        if event != "call" or frame.f_code.co_name in ("<module>", "<lambda>"):
            return
        name = _module(frame)
        if name and name not in self.passed and not _at_import(frame):
            self.passed[name] = _caller(frame.f_back, name)


def _module(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", ""))
    return name if name.split(".")[0] == PACKAGE else ""


def _at_import(frame: FrameType | None) -> bool:
    """Whether a call comes from the body of a module or class, not from the work itself."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and _module(frame):
            return True
        frame = frame.f_back
    return False


def _caller(frame: FrameType | None, name: str) -> str:
    while frame is not None:
        found = _module(frame)
        if found and found != name:
            return found
        frame = frame.f_back
    return ""


def main() -> None:
    """Run a command of the program and print its walk."""
    walk = Walk()
    from scaleport.cli.main import main as run

    sys.argv = [PACKAGE, *sys.argv[1:]]
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        run()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    width = max(map(len, walk.passed), default=0)
    for module, caller in walk.passed.items():
        print(f"{module:{width}}  {caller}")


if __name__ == "__main__":
    main()
