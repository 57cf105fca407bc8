"""Names of files in the making, and removing those that a killed process left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import time
from pathlib import Path
from typing import Final

import psutil

_NAME: Final = re.compile(
    r"\.scaleport-([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{16}(\.[a-z0-9]+)*\.tmp"
)
_OLD: Final = 24 * 60 * 60
"""Seconds after which a file of another machine counts as left behind."""


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def temporary_stem(target: Path) -> Path:
    """A hidden path beside a target that no other process uses; add what ends in ``.tmp`` to it.

    The name says whose it is, so that :func:`remove_leftovers` can tell a file that is being
    written from one that never will be.
    """
    name = f".scaleport-{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return target.with_name(name)


def remove_leftovers(folder: Path) -> int:
    """Remove what killed processes left in a folder; files of living ones stay.

    A process of this machine is asked for by its number. Files of another machine count as left
    behind after a day.

    Returns:
        How many files were removed.
    """
    try:
        entries = [entry for entry in folder.iterdir() if entry.name.startswith(".scaleport-")]
    except OSError:
        return 0
    removed = 0
    for path in entries:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError):
            dead = match[1] == _machine() and not psutil.pid_exists(int(match[2]))
            if dead or time.time() - path.stat().st_mtime > _OLD:
                path.unlink()
                removed += 1
    return removed
