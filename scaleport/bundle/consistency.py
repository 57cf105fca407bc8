"""What a manifest must say beyond its schema: sound paths, graphs that are there, ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scaleport.bundle.manifest import Manifest
from scaleport.bundle.paths import path_key, path_problem
from scaleport.bundle.strict import refuse_excess

MAX_BUNDLE_BYTES = 64 << 30
"""Most that the listed files may hold together."""


def entries_under(files: Iterable[str], relpath: str) -> list[str]:
    """The listed files that a path stands for: itself, or all below it if it is a directory."""
    return [name for name in files if name == relpath or name.startswith(relpath + "/")]


def check_consistent(manifest: Manifest) -> None:
    """Check what the schema alone cannot say.

    Listed paths are sound and differ in more than case, graphs are listed files, ranges are not
    empty, and what has a free form is of a reasonable size.

    Raises:
        ValueError: with one line that says what is wrong.
    """
    seen: dict[str, str] = {}
    for relpath in manifest.files:
        problem = path_problem(relpath)
        if problem:
            raise ValueError(f"the listed path {relpath!r} {problem}")
        other = seen.setdefault(path_key(relpath), relpath)
        if other != relpath:
            raise ValueError(f"the listed paths {other!r} and {relpath!r} differ in case only")
    known = set(manifest.files)
    for relpath in manifest.files:
        known.update(str(parent) for parent in parents(relpath))
    for fmt, graphs in manifest.graphs.items():
        for graph in graphs:
            if graph.path not in known:
                raise ValueError(f"the {fmt} graph {graph.path!r} is not among the listed files")
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise ValueError(f"it declares more than {MAX_BUNDLE_BYTES >> 30} GiB")
    if manifest.scale.min > manifest.scale.max:
        raise ValueError("its smallest scale is larger than its largest")
    for name, axis in (("height", manifest.height), ("width", manifest.width)):
        if not axis.min <= axis.opt <= axis.max:
            raise ValueError(f"its range of {name} is not min <= opt <= max")
    refuse_excess(manifest.model, "the model's configuration")


def parents(relpath: str) -> Iterator[str]:
    """The directories above a listed path, the nearest first."""
    while "/" in relpath:
        relpath = relpath.rsplit("/", 1)[0]
        yield relpath
