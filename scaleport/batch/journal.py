"""A record of finished outputs, from which an interrupted run goes on.

``.scaleport-journal.jsonl`` lies in the folder of the outputs. Every finished output adds one line
of JSON, written and synced after the output has its name: what the journal says is there, was
there. A line that a power cut tore is ignored, its image is made again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Annotated, Final

import msgspec

from scaleport.atomic import write_bytes
from scaleport.bundle.integrity import sha256_file
from scaleport.bundle.manifest import Sha256
from scaleport.errors import OutputError

JOURNAL_NAME: Final = ".scaleport-journal.jsonl"

_LARGEST: Final = 1 << 28
"""Bytes; no folder holds so many images, such a file is not a journal."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One finished output; ``output`` is what :func:`recorded_name` says.

    ``input_size`` and ``output_size`` are (height, width) in pixels.
    """

    output: str
    bytes: Count
    sha256: Sha256
    input_sha256: Sha256
    settings: Sha256
    input_size: tuple[Count, Count]
    output_size: tuple[Count, Count]


class Journal:
    """The journal of one folder of outputs. Several threads may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / JOURNAL_NAME
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._torn = False
        data = self._read()
        lines = data.splitlines()
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.MsgspecError:
                continue
            self._entries[entry.output] = entry
        self._torn = bool(data) and not data.endswith(b"\n")
        if len(lines) > 2 * len(self._entries) + 100:
            self._rewrite()

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes() if self._path.stat().st_size <= _LARGEST else b""
        except OSError:
            return b""

    def _rewrite(self) -> None:
        """Drop lines that later ones replace."""
        text = b"".join(_line(entry) for entry in self._entries.values())
        with contextlib.suppress(OutputError):
            write_bytes(self._path, text)
            self._torn = False

    def lists(self, name: str) -> bool:
        """Whether an output of this name was finished here once; nothing is compared."""
        with self._lock:
            return name in self._entries

    def find(self, target: Path, input_sha256: str, settings: str) -> Entry | None:
        """The entry of an output that is finished and still what it was; None if it must be made.

        Args:
            target: the output; its file is read and compared.
            input_sha256: of the source as it is now.
            settings: of :func:`scaleport.batch.work.settings_digest`.
        """
        with self._lock:
            entry = self._entries.get(recorded_name(target))
        if entry is None or (entry.input_sha256, entry.settings) != (input_sha256, settings):
            return None
        try:
            found = sha256_file(target)
        except OSError:
            return None
        return entry if (found.bytes, found.sha256) == (entry.bytes, entry.sha256) else None

    def add(self, entry: Entry) -> None:
        """Record a finished output.

        Raises:
            OutputError: if the journal cannot be written.
        """
        with self._lock:
            data = (b"\n" if self._torn else b"") + _line(entry)
            try:
                with self._path.open("ab") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                self._torn = True
                raise OutputError(
                    f"cannot write {self._path}: {error.strerror or error}"
                ) from error
            self._torn = False
            self._entries[entry.output] = entry


def recorded_name(target: Path) -> str:
    """How the journal calls an output: its name, or its bytes in hex where these are no UTF-8.

    A slash marks those; no name holds one.
    """
    try:
        target.name.encode()
    except UnicodeEncodeError:
        return f"/{os.fsencode(target.name).hex()}"
    return target.name


def _line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
