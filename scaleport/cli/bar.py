"""The progress bar of a terminal."""

from __future__ import annotations

import sys
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text


class OneTime(ProgressColumn):
    """The time that is left where it can be estimated, else the time that has passed; labelled."""

    def render(self, task: Task) -> Text:
        """The time of a task."""
        left = task.time_remaining
        if left is not None and not task.finished:
            return Text(f"{_clock(left)} left", style="progress.remaining")
        return Text(f"{_clock(task.finished_time or task.elapsed or 0)} passed")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def progress_bar() -> Progress:
    """A bar on stderr that leaves nothing behind."""
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        OneTime(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # Lines on the same terminal go above the bar; elsewhere stdout is left alone.
        redirect_stdout=sys.stdout.isatty(),
    )
