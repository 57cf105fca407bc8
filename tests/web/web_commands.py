"""Commands of the browser package, run as a developer runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

WEB = Path(__file__).parents[2] / "web"


def run(command: list[str], folder: Path = WEB, timeout: float = 1200, **environment: str) -> str:
    """What a command prints; it must end well."""
    ran = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=timeout,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout
