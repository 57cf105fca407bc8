"""What a verb prints: text or JSON on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from scaleport.cli.stopping import raise_again
from scaleport.progress import Progress, silent

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else there.")
]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
VerboseFlag = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more, and tracebacks of errors.")
]

_LEAST_FOLD = 24
"""Narrowest column that text is folded into."""
_NONE = slice(0, 0)


def put(text: str, err: bool = False) -> None:
    """Write a line to stdout or stderr as they are now, so that a progress bar can make room.

    A bundle may come from a stranger and names are printed: control characters, which a terminal
    would obey, and those that reorder text are written as escapes.
    """
    stream = sys.stderr if err else sys.stdout
    stream.write("".join(map(_shown, text)) + "\n")
    stream.flush()


def _shown(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character if unicodedata.category(character) == "Zs" else ascii(character)[1:-1]


@dataclass(frozen=True)
class Output:
    """Where the lines of one command go."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def say(self, text: str = "") -> None:
        """A line for people, on stdout."""
        if not self.json and not self.quiet:
            put(text)

    def say_table(
        self, rows: Sequence[Sequence[str]], indent: str = "  ", numbers: slice = _NONE
    ) -> None:
        """Aligned columns for people, see :func:`table`; the last is folded to the terminal."""
        if not self.json and not self.quiet:
            for line in table(rows, indent, columns(sys.maxsize), numbers):
                put(line)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet:
            put(f"note: {text}", err=True)

    def remark(self, text: str) -> None:
        """A line for people on stderr, beside a result that goes to stdout; not with ``--json``."""
        if not self.json and not self.quiet:
            put(text, err=True)

    def result(self, value: Any) -> None:
        """The machine-readable result, with ``--json`` only."""
        if self.json:
            import msgspec

            plain = msgspec.to_builtins(value, enc_hook=str)
            put(json.dumps(plain, indent=2, allow_nan=False))

    @contextlib.contextmanager
    def progress(self, log: bool = False) -> Iterator[Progress]:
        """A bar on stderr while the block runs, if that is a terminal.

        Args:
            log: where it is none, write what is being done in lines, which ``-v`` does anyway.

        Yields:
            A progress function. It raises where the command has been told to stop and a library
            swallowed that.
        """
        with self._bar(log) as show:

            def tell(done: float, total: float | None, text: str, /) -> None:
                raise_again()
                show(done, total, text)

            yield tell

    @contextlib.contextmanager
    def _bar(self, log: bool) -> Iterator[Progress]:
        if self.json or self.quiet or not sys.stderr.isatty():
            wanted = self.verbose or (log and not self.json and not self.quiet)
            yield _log_changes() if wanted else silent
            return
        from scaleport.cli.bar import progress_bar

        with progress_bar() as bar:
            task = bar.add_task("", total=None)

            def show(done: float, total: float | None, text: str, /) -> None:
                bar.update(task, completed=done, total=total, description=text)

            yield show

    @contextlib.contextmanager
    def libraries(self) -> Iterator[None]:
        """Keep what libraries print and warn about off stdout, and off stderr unless verbose."""
        with contextlib.redirect_stdout(sys.stderr if self.verbose else io.StringIO()):
            if self.verbose:
                yield
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield


def _log_changes() -> Progress:
    said = [""]

    def log(done: float, total: float | None, text: str, /) -> None:
        del done, total
        if text and text != said[0]:
            said[0] = text
            put(text, err=True)

    return log


def error_line(message: str) -> str:
    """How an error is printed: one line, whatever its message holds."""
    return "error: " + " ".join(message.splitlines())


def columns(otherwise: int) -> int:
    """How wide the terminal is, or what COLUMNS says; a file or a pipe has no width of its own."""
    return shutil.get_terminal_size((otherwise, 24)).columns


def table(
    rows: Sequence[Sequence[str]],
    indent: str = "  ",
    width: int | None = None,
    numbers: slice = _NONE,
) -> list[str]:
    """Lines of aligned columns, drawn by rich without boxes and colours.

    No cell is ever cut: only the last column is folded, between words, and only where a width
    leaves it room enough.

    Args:
        rows: cells, all rows of the same number; a head is a row like the others.
        indent: what every line begins with.
        width: columns of the terminal; None for no limit.
        numbers: columns that are aligned to the right.
    """
    if not rows:
        return []
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [["".join(map(_shown, cell)) for cell in row] for row in rows]
    *before, last = zip(*shown, strict=True)
    start = len(indent) + sum(2 + max(map(cell_len, column)) for column in before)
    word = max(cell_len(word) for cell in last for word in ("", *cell.split()))
    room = max(map(cell_len, last))
    if width is not None and width - start >= _LEAST_FOLD:
        room = min(room, max(width - start, word))
    drawn = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    to_right = range(*numbers.indices(len(before) + 1))
    for number in range(len(before)):
        drawn.add_column(no_wrap=True, justify="right" if number in to_right else "left")
    drawn.add_column(width=room, justify="right" if len(before) in to_right else "left")
    for row in shown:
        drawn.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=max(1, start + room), color_system=None)
    with console.capture() as lines:
        console.print(drawn, crop=False)
    return [(indent + line).rstrip() for line in lines.get().splitlines()]


def size_text(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return (
        f"{value:.0f} {units[0]}" if value >= 100 or units[0] == "B" else f"{value:.1f} {units[0]}"
    )
