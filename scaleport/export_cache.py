"""The cache of exports: finished bundles by what they were made from, in the user's cache folder.

An entry is ``KEY/NAME.bundle``. Its key says everything that its bytes depend on, so that an entry
is right as long as it is there, see :func:`scaleport.export.exporter.cache_key`. No torch is needed
to find bundles here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from scaleport.errors import ScaleportError
from scaleport.paths import holds
from scaleport.shipped import BUNDLE_SUFFIX

VARIABLE: Final = "SCALEPORT_CACHE"
"""Environment variable that names another cache folder."""
MOST_BYTES: Final = 2 << 30
"""What the entries may hold together; the ones used longest ago go first."""
_LOCK: Final = ".lock"


def cache_folder() -> Path:
    """Folder of the entries; it need not exist."""
    given = os.environ.get(VARIABLE)
    return (Path(given) if given else user_cache_path("scaleport")) / "exports"


def exported_bundles() -> dict[str, Path]:
    """The newest bundle of every name, by name, sorted."""
    found: dict[str, Path] = {}
    for path in sorted(_entries(), key=_used):  # the later one of a name replaces the earlier
        found[path.name.removesuffix(BUNDLE_SUFFIX)] = path
    return dict(sorted(found.items()))


def fetch(key: str) -> Path | None:
    """The entry of a key, or None. It counts as used now."""
    folder = cache_folder() / key
    path = next(iter(folder.glob(f"*{BUNDLE_SUFFIX}")), None) if holds(folder.is_dir) else None
    if path is not None:
        with contextlib.suppress(OSError):
            os.utime(folder)
    return path


def discard(key: str) -> None:
    """Remove an entry, such as a damaged one."""
    shutil.rmtree(cache_folder() / key, ignore_errors=True)


def keep(key: str, bundle: Path, name: str, most_bytes: int = MOST_BYTES) -> None:
    """Copy a finished bundle into the cache, and make room for it.

    Processes may do so at the same time: an entry appears complete or not at all. A cache that
    cannot be written is no error: the export is done.

    Args:
        key: what the bundle was made from.
        bundle: the bundle.
        name: what it is called.
        most_bytes: what all entries may hold together.
    """
    from filelock import FileLock

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            _clear_unfinished(folder)
            if fetch(key) is None:
                unfinished = folder / f".{key}"
                shutil.copytree(bundle, unfinished / f"{name}{BUNDLE_SUFFIX}")
                unfinished.rename(folder / key)
            _make_room(folder, key, most_bytes)
    except (OSError, ScaleportError):
        discard(f".{key}")


def _entries() -> list[Path]:
    folder = cache_folder()
    if not holds(folder.is_dir):
        return []
    return [
        path for path in folder.glob(f"*/*{BUNDLE_SUFFIX}") if not path.parent.name.startswith(".")
    ]


def _used(bundle: Path) -> int:
    try:
        return bundle.parent.stat().st_mtime_ns
    except OSError:  # removed by another process meanwhile
        return 0


def _clear_unfinished(folder: Path) -> None:
    """Remove what a killed process left; only the holder of the lock writes such folders."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _make_room(folder: Path, newest: str, most_bytes: int) -> None:
    entries = sorted(_entries(), key=_used, reverse=True)
    entries.sort(key=lambda path: path.parent.name != newest)
    total = 0
    for path in entries:
        total += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if total > most_bytes and path.parent.name != newest:
            shutil.rmtree(folder / path.parent.name, ignore_errors=True)
