"""What to install where an optional package is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from scaleport.errors import BackendError


@contextlib.contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Turn a missing package into an error that says what to install.

    Args:
        extra: the pip extra that brings the package.
        purpose: what it is needed for, as the subject of "needs".

    Raises:
        BackendError: if an import in the block fails.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        if missing.split(".")[0] == "scaleport":
            raise
        raise BackendError(
            f"{purpose} needs {missing}, which is not installed: pip install 'scaleport[{extra}]'"
        ) from error
