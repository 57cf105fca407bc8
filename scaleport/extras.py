"""Packages beside this one: which are installed, and what to install where one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

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


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed, by name."""
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
