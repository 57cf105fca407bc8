"""A picture of a benchmark: a group of bars per size and scale, one bar per contender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scaleport.benchmark.run import Row
from scaleport.errors import OutputError, UsageError
from scaleport.figures import save_figure
from scaleport.runtimes.base import precision_text

SUFFIXES: Final = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Find out before measuring whether a plot could be written.

    Raises:
        OutputError: if there is no such folder, or the suffix is of another format.
        UsageError: if matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"a plot is written as {', '.join(SUFFIXES)}; got {path}")
    if not path.parent.is_dir() or path.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent} to hold it")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("a plot needs matplotlib: pip install 'scaleport[train]'") from error


def plot(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """Draw the output megapixels per second of every row, with the quartiles of the rounds.

    Args:
        rows: of one benchmark.
        path: target, complete or not there; its suffix says the format.
        title: heading.

    Raises:
        OutputError: if it cannot be written.
        UsageError: if matplotlib is not installed.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(_group(row) for row in rows))
    names = list(dict.fromkeys(map(_name, rows)))
    figure = Figure(figsize=(max(6.0, 1.5 + 0.45 * len(rows)), 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        some = [row for row in rows if _name(row) == name]
        xs = [groups.index(_group(row)) + (place - (len(names) - 1) / 2) * width for row in some]
        rates = [row.megapixels for row in some]
        below = [row.megapixels * (1 - row.seconds.median / row.seconds.high) for row in some]
        above = [row.megapixels * (row.seconds.median / row.seconds.low - 1) for row in some]
        axes.bar(xs, rates, width, yerr=(below, above), capsize=2, label=" ".join(name))
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel="output megapixels per second", title=title)
    axes.legend()
    save_figure(figure, path, dpi=150)


def _name(row: Row) -> tuple[str, str]:
    return row.contender, precision_text(row.precision, row.inference_precision)


def _group(row: Row) -> str:
    return f"{row.bundle}\n{row.size[1]}x{row.size[0]} x{row.scale:g}"
