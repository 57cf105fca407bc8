"""``python -m scaleport.training``: the same as ``scaleport train``."""

from __future__ import annotations

import sys

from scaleport.cli.main import main as command_line


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return command_line(["train", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
