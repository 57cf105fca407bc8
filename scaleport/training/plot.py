"""A picture of a run: loss and validation PSNR over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaleport.errors import UsageError
from scaleport.figures import save_figure
from scaleport.training.log import Row

PLOT_FILE = "training.svg"


def smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average without the pull of its beginning."""
    result, total, share = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        share = weight * share + (1 - weight)
        result.append(total / share)
    return result


def plot_log(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """Draw loss (logarithmic) and validation PSNR over the steps.

    Args:
        rows: the log, see :func:`scaleport.training.log.read_log`.
        path: target; its suffix says the format: .svg, .png, .pdf.
        title: heading.

    Raises:
        OutputError: if it cannot be written.
        UsageError: if the log is empty, or matplotlib is not installed.
    """
    if not rows:
        raise UsageError("nothing to plot: the log is empty")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("a plot needs matplotlib: pip install 'scaleport[train]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    steps, losses = [row.step for row in rows], [row.loss for row in rows]
    axes.plot(steps, losses, color="tab:blue", alpha=0.3)
    (line,) = axes.plot(steps, smoothed(losses), color="tab:blue", label="loss")
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=title)
    lines = [line]
    scored = [(row.step, row.psnr) for row in rows if row.psnr is not None]
    if scored:
        right = axes.twinx()
        places, values = zip(*scored, strict=True)
        lines += right.plot(places, values, "o-", color="tab:red", ms=3, label="validation PSNR")
        right.set_ylabel("PSNR on luma, dB")
    axes.legend(handles=lines, loc="center right")
    save_figure(figure, path)
