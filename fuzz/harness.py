"""What every fuzz target shares: instrumentation, the verdict on one input, and how it is run.

A target is a function of bytes. It may return, or raise a :class:`ScaleportError` of one line;
everything else is a finding. Time and memory are limited by libFuzzer's ``-timeout`` and
``-rss_limit_mb``.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import atheris

Target = Callable[[bytes], None]
Mutator = Callable[[bytes, int, int], bytes]

FINDINGS = "SCALEPORT_FUZZ_FINDINGS"
"""Environment variable: a folder for findings. With it a run goes on after a finding."""


def scratch() -> Path:
    """A folder of this process for files that a target writes, in memory where there is one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="scaleport-fuzz-", dir=memory if memory.is_dir() else None))


def run(target: Target, mutator: Mutator | None = None) -> None:
    """Hand the target to libFuzzer; arguments of the process are libFuzzer's."""
    from scaleport.errors import ScaleportError

    place = os.environ.get(FINDINGS)
    folder = Path(place) if place else None

    def one(data: bytes) -> None:
        try:
            target(data)
        except ScaleportError as error:
            text = str(error)
            if text and "\n" not in text and len(text) < 2000:
                return
            _found(folder, data, AssertionError(f"not one line: {text[:3000]!r}"))
        except Exception as error:
            _found(folder, data, error)

    setup = {"custom_mutator": mutator} if mutator else {}
    atheris.Setup(sys.argv, one, **setup)
    atheris.Fuzz()


def _found(folder: Path | None, data: bytes, error: Exception) -> None:
    """Raise, or keep one input for every place that raises and go on."""
    if folder is None:
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "scaleport" in f.filename]
    key = f"{type(error).__name__} {where[-1] if where else 'elsewhere'}"
    name = hashlib.sha256(key.encode()).hexdigest()[:12]
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        text = "".join(traceback.format_exception(error))
        (folder / f"{name}.txt").write_text(f"{key}\n{text[-6000:]}", errors="replace")
