"""Finding TensorRT or TensorRT-RTX, importing it late, and keeping its logger quiet."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scaleport.errors import BackendError, UsageError

TITLES: Final = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
EXTRAS: Final = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_LOUD: Final = ("INTERNAL_ERROR", "ERROR", "WARNING")
# Follows every other error on a machine without a driver, and explains none of them.
_NO_DRIVER: Final = "CUDA driver version is insufficient"
_OUT_OF_MEMORY: Final = re.compile(r"out ?of ?memory|cudaErrorMemoryAllocation", re.IGNORECASE)


@dataclass(frozen=True)
class Library:
    """One of the two libraries, imported."""

    name: str
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Name and version for messages: ``TensorRT-RTX 1.7.1``."""
        return f"{TITLES[self.name]} {self.version}"


def load_library(name: str) -> Library:
    """Import ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        UsageError: if the name is neither.
        BackendError: if it is not installed or cannot be imported; names the extra to install.
    """
    if name not in TITLES:
        raise UsageError(f"unknown TensorRT library {name!r}, known: {', '.join(TITLES)}")
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {error}"
        raise BackendError(
            f"{TITLES[name]} {reason}; install it with pip install 'scaleport[{EXTRAS[name]}]'"
        ) from error
    return Library(name, module, str(module.__version__))


def installed() -> list[Library]:
    """The libraries that can be imported, the full TensorRT first."""
    found = []
    for name in TITLES:
        with contextlib.suppress(BackendError):
            found.append(load_library(name))
    return found


class Messages:
    """Warnings and errors that a library logged during one task."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []

    def add(self, severity: str, text: str) -> None:
        """Keep one message unless it is below a warning."""
        if severity in _LOUD:
            self._entries.append((severity, text))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was logged as a warning, each on one line, without repetitions."""
        lines = (plain_message(text) for severity, text in self._entries if severity == "WARNING")
        return tuple(dict.fromkeys(lines))

    @property
    def first_error(self) -> str:
        """The first error that says something, on one line; empty when there is none."""
        errors = [plain_message(text) for severity, text in self._entries if severity != "WARNING"]
        telling = [text for text in errors if _NO_DRIVER not in text]
        return next(iter(telling or errors), "")

    @property
    def out_of_memory(self) -> bool:
        """Whether any error speaks of exhausted memory."""
        return any(
            _OUT_OF_MEMORY.search(text) for severity, text in self._entries if severity != "WARNING"
        )


class _Sinks:
    """Who listens to a library's logger at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Messages] = []

    def send(self, severity: str, text: str) -> None:
        with self._lock:
            for messages in self._open:
                messages.add(severity, text)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Messages]:
        messages = Messages()
        with self._lock:
            self._open.append(messages)
        try:
            yield messages
        finally:
            with self._lock:
                self._open = [one for one in self._open if one is not messages]


@functools.cache
def _logger(name: str) -> tuple[Any, _Sinks]:
    """The logger of a library. It keeps the first one it is given for the life of the process."""
    module = load_library(name).module
    sinks = _Sinks()
    base: Any = module.ILogger

    class QuietLogger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            sinks.send(severity.name, msg)

    logger = QuietLogger()
    # Without this every message below a warning would still be formatted and handed over.
    logger.min_severity = module.ILogger.Severity.WARNING
    return logger, sinks


@contextlib.contextmanager
def logged(library: Library) -> Iterator[tuple[Any, Messages]]:
    """The library's logger, and what it says from here to the end of the block."""
    logger, sinks = _logger(library.name)
    with sinks.listening() as messages:
        yield logger, messages


def plain_message(text: str) -> str:
    """A library's message on one line: what went wrong, not where in its source code."""
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _NO_DRIVER not in line] or lines
    joined = " ".join(telling)
    joined = re.sub(r"\s*\bIn [\w:~]+ at [^\s)]+:\d+\s*", "", joined)
    joined = re.sub(r"^\[?\w+\.cpp::?\S*\s+(ERROR: )?", "", joined)
    joined = re.sub(r"Error Code \d+: ", "", joined)
    return joined.strip()
