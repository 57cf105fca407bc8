"""``-`` for an input or an output: images through pipes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scaleport.cli.output import Output, put
from scaleport.errors import UsageError

_STDIN: Final = ("-", "/dev/stdin")
_STDOUT: Final = ("-", "/dev/stdout")


class Streams:
    """Inputs and the output of a command, with files in place of ``-``.

    Args:
        inputs: as given; ``-`` alone is the standard input.
        output: as given; ``-`` is the standard output, and so is None where the input is one.
        suffix: of the format that is written to the standard output, without a dot; PNG if empty.

    Raises:
        UsageError: if ``-`` is one of several inputs, or an image would come from or go to a
            terminal.
    """

    def __init__(self, inputs: Sequence[str], output: str | None, suffix: str) -> None:
        self.inputs, self.output = list(inputs), output
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._result: Path | None = None
        if any(path in _STDIN for path in inputs):
            if len(inputs) > 1:
                raise UsageError(
                    "- reads one image from the standard input; leave out other inputs"
                )
            self.output = output or "-"
            self.inputs = [str(self._read_from())]
        if self.output in _STDOUT:
            if sys.stdout.isatty():
                raise UsageError("an image is not written to a terminal; add -o FILE or a pipe")
            self._result = self._scratch() / f"stdout.{suffix.lower().removeprefix('.') or 'png'}"
            self.output = str(self._result)

    @property
    def to_stdout(self) -> bool:
        """Whether the image goes to the standard output."""
        return self._result is not None

    def reporter(self, as_json: bool, quiet: bool, verbose: bool) -> Output:
        """Where the command's lines go: away from an image on the standard output.

        Raises:
            UsageError: if both the image and JSON would be written there.
        """
        if self.to_stdout and as_json:
            raise UsageError("--json needs the standard output; name a file with -o")
        return (BesideImage if self.to_stdout else Output)(as_json, quiet, verbose)

    def send(self) -> None:
        """Write the result to the standard output if it goes there and was made."""
        if self._result is not None and self._result.is_file():
            with self._result.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    def _read_from(self) -> Path:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("there is no image on the standard input; name a file or use a pipe")
        stdin = Path(_STDIN[1])
        if stdin.exists():
            return stdin
        copy = self._scratch() / "stdin"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return copy

    def _scratch(self) -> Path:
        if self._folder is None:
            # Removed with this object, or when the program ends.
            self._folder = tempfile.TemporaryDirectory(prefix="scaleport-")
        return Path(self._folder.name)


class BesideImage(Output):
    """Lines for people go to stderr, because stdout holds an image."""

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.quiet:
            put(text, err=True)
