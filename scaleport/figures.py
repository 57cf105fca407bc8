"""Writing what matplotlib has drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaleport.atomic import atomic_path
from scaleport.errors import OutputError


def save_figure(figure: Any, path: Path, dpi: int = 100) -> None:
    """Write a matplotlib figure, complete or not at all.

    Args:
        figure: a ``matplotlib.figure.Figure``.
        path: target; its suffix says the format, without one it is PNG.
        dpi: pixels per inch of formats that have pixels.

    Raises:
        OutputError: if it cannot be written or the format is unknown.
    """
    with atomic_path(path) as new:
        try:
            figure.savefig(new, format=path.suffix[1:].lower() or "png", dpi=dpi)
        except ValueError as error:
            raise OutputError(f"cannot write {path}: {error}") from error
