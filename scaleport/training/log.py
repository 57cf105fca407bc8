"""The record of a run: a CSV file, and TensorBoard where asked for."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from scaleport.atomic import write_bytes, written
from scaleport.errors import UsageError

LOG_FILE = "log.csv"
COLUMNS = ("step", "lr", "loss", "seconds", "val_psnr_y")


@dataclass(frozen=True)
class Row:
    """Mean loss of the steps up to ``step`` since the row before, and what was measured there."""

    step: int
    lr: float
    loss: float
    seconds: float
    psnr: float | None = None
    """Validation PSNR on luma in dB."""


def read_log(path: Path) -> list[Row]:
    """All rows of a run's CSV file; lines cut short by a kill are left out.

    Raises:
        UsageError: if the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line and line[0].isdigit()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    rows = []
    for line in lines:
        if len(line) == len(COLUMNS):
            psnr = float(line[4]) if line[4] else None
            rows.append(Row(int(line[0]), float(line[1]), float(line[2]), float(line[3]), psnr))
    return rows


@dataclass
class Tally:
    """Losses since the last row of the log."""

    unread: list[Tensor] = field(default_factory=list)
    """Of the last steps, still on the device."""
    losses: list[float] = field(default_factory=list)
    latest: float = math.nan
    start: float = field(default_factory=time.monotonic)

    def take(self, values: list[float]) -> None:
        """Replace what was unread by its values."""
        self.unread.clear()
        self.losses += values
        self.latest = self.losses[-1] if self.losses else self.latest

    def mean(self) -> tuple[float, float]:
        """Mean loss, and the seconds that its steps took."""
        return sum(self.losses) / len(self.losses), time.monotonic() - self.start

    def begin(self) -> None:
        """Begin anew, after a row."""
        self.losses, self.start = [], time.monotonic()


class Log:
    """Writer of the record; rows of steps that a resumed run repeats are dropped first.

    Args:
        work: the run's directory.
        step: where the run begins or goes on.
        tensorboard: whether to write events below ``work/tensorboard`` too.

    Raises:
        OutputError: if the file cannot be written.
        UsageError: if TensorBoard is not installed.
    """

    def __init__(self, work: Path, step: int, tensorboard: bool = False) -> None:
        path = work / LOG_FILE
        kept = [row for row in read_log(path) if row.step <= step] if path.is_file() else []
        self._events = _event_writer(work / "tensorboard", step) if tensorboard else None
        # At once: who is killed here must not lose the rows of hours.
        write_bytes(path, _lines(kept if step else []).encode())
        with written(path):
            self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def row(self, row: Row) -> None:
        """Add a row and flush it."""
        self._write(row)
        if self._events is not None:
            self._events.add_scalar("loss", row.loss, row.step)
            self._events.add_scalar("lr", row.lr, row.step)
            if row.psnr is not None and math.isfinite(row.psnr):
                self._events.add_scalar("val_psnr_y", row.psnr, row.step)

    def _write(self, row: Row) -> None:
        self._writer.writerow(_cells(row))
        self._file.flush()


def _cells(row: Row) -> list[object]:
    cells = [row.step, f"{row.lr:.3e}", f"{row.loss:.6f}", f"{row.seconds:.1f}"]
    return [*cells, "" if row.psnr is None else f"{row.psnr:.3f}"]


def _lines(rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in rows)
    return text.getvalue()


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install tensorboard") from error
    # Events at this step and later are hidden; the resumed run repeats the later ones only.
    return SummaryWriter(folder, purge_step=step + 1 if step else None)
