"""Opening a bundle: nothing in it is believed before it has been checked.

A bundle may come from anywhere. Opening one reads and checks the manifest, every path it lists
and the size of every file; the bytes of a file are compared with their hash when the file is
first used, and again when it has changed since. What a graph asks for is checked with its bytes,
see :mod:`scaleport.bundle.graph_checks`. All that can be wrong is an
:class:`~scaleport.errors.ArtifactError` of one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import msgspec

from scaleport.bundle.graph_checks import check_graph, checked_allowances
from scaleport.bundle.integrity import (
    check_consistent,
    entries_under,
    file_stamp,
    parents,
    refuse_duplicates,
    sha256_file,
)
from scaleport.bundle.manifest import (
    CHECKPOINT_NAME,
    FORMAT_VERSION,
    MANIFEST_NAME,
    FileEntry,
    Graph,
    Manifest,
    Precision,
    decode,
)
from scaleport.bundle.signature import check_signature
from scaleport.errors import ArtifactError, UsageError, one_line
from scaleport.paths import address_problem, holds, similar_name
from scaleport.ready import find_bundle, names_hint, ready_checkpoint
from scaleport.shipped import export_hint

MAX_MANIFEST_BYTES = 16 << 20
"""Largest manifest that is read at all."""
_REMEDY = "export the model again"


class _Head(msgspec.Struct):
    """What every version of the manifest holds; the rest depends on the version."""

    format_version: int


class Bundle:
    """An opened bundle.

    Use :meth:`file` to get a file: it compares the file with its hash first.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        allow: Collection[str] = (),
        manifest_bytes: bytes = b"",
        verify_key: Path | None = None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.manifest_bytes = manifest_bytes
        self.allow = tuple(checked_allowances(allow)) if allow else ()
        """What its graphs may hold although code from elsewhere would run it."""
        self.verify_key = verify_key
        """The key that the manifest was found to be signed with; None if that was not asked."""
        # Per file what the system said of it when it was hashed: a file that changes shows in it.
        self._verified: dict[str, tuple[int, ...]] = {}
        self._checked: dict[str, tuple[tuple[int, ...], ...]] = {}

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, name={self.manifest.name!r})"

    def formats(self) -> tuple[str, ...]:
        """Graph formats that hold at least one graph, sorted."""
        return tuple(sorted(fmt for fmt, graphs in self.manifest.graphs.items() if graphs))

    def precisions(self, format: str) -> tuple[Precision, ...]:
        """Precisions of a graph format, in the order fp32, fp16, int8; empty if there are none."""
        there = {graph.precision for graph in self.manifest.graphs.get(format, ())}
        return tuple(precision for precision in get_args(Precision) if precision in there)

    def graphs(
        self, format: str, stage: str | None = None, precision: str | None = None
    ) -> tuple[Graph, ...]:
        """All graphs of a format that match, in the manifest's order; empty if there are none.

        More than one can share stage and precision where graphs are bound to a device, see
        :attr:`scaleport.bundle.manifest.Graph.target`.
        """
        return tuple(
            graph
            for graph in self.manifest.graphs.get(format, ())
            if stage in (None, graph.stage) and precision in (None, graph.precision)
        )

    def graph(self, format: str, stage: str, precision: str) -> Graph:
        """The first graph of a format, stage and precision.

        Raises:
            UsageError: if there is none; the message lists what there is.
        """
        found = self.graphs(format, stage, precision)
        if found:
            return found[0]
        if not self.graphs(format):
            skipped = self.manifest.skipped.get(format)
            reason = f" ({skipped})" if skipped else ""
            there = ", ".join(self.formats()) or "none"
            raise UsageError(
                f"{self.path} holds no {format} graphs{reason}; formats there are: {there}"
            )
        if not self.graphs(format, precision=precision):
            there = ", ".join(self.precisions(format))
            raise UsageError(
                f"{self.path} holds no {format} graphs in {precision}; there are: {there}"
            )
        there = ", ".join(graph.stage for graph in self.graphs(format, precision=precision))
        raise UsageError(
            f"{self.path} holds no {format} graph {stage} in {precision}; there are: {there}"
        )

    def checkpoint(self) -> Path:
        """The PyTorch checkpoint ``model.safetensors``, verified.

        Raises:
            ArtifactError: if the bundle holds none, or it is damaged.
        """
        if CHECKPOINT_NAME not in self.manifest.files:
            beside = ready_checkpoint(self.path, self.manifest.name)
            if beside is not None:
                return beside
            raise ArtifactError(f"{self.path} holds no {CHECKPOINT_NAME}; {_REMEDY}")
        return self.file(CHECKPOINT_NAME)

    def file(self, relpath: str) -> Path:
        """A listed file, or a directory with listed files below it, verified.

        Each file is hashed once per opened bundle, and again if it has changed since. A graph's
        sidecars (weights in external data, the ``.bin`` of an ``.xml``) are verified with it: all
        listed files below the graph's directory that belong to no graph of their own.

        Args:
            relpath: path as the manifest writes it, e.g. ``onnx/fp32/encode.onnx`` or
                ``coreml/fp32/encode.mlpackage``.

        Returns:
            The path to open, below :attr:`path`.

        Raises:
            ArtifactError: if it is not listed, is gone, its bytes are not those exported, or it is
                a graph that reads unlisted files or asks for operations that are not allowed.
        """
        names = entries_under(self.manifest.files, relpath)
        if not names:
            raise ArtifactError(f"{self.path} does not list {relpath!r}; {_REMEDY}")
        names += self._sidecars(relpath)
        for name in names:
            self._verify(name)
        self._check(relpath, names)
        return self.path / relpath

    def verify(self) -> None:
        """Compare every listed file with its hash, and check every graph.

        Raises:
            ArtifactError: at the first file that differs, or graph that is refused.
        """
        for name in self.manifest.files:
            self._verify(name)
        for path in dict.fromkeys(g.path for some in self.manifest.graphs.values() for g in some):
            self.file(path)

    def _check(self, relpath: str, names: list[str]) -> None:
        stamps = tuple(self._verified[name] for name in names)
        if self._checked.get(relpath) == stamps:
            return
        for fmt, graphs in self.manifest.graphs.items():
            if any(graph.path == relpath for graph in graphs):
                verified = {name: self.manifest.files[name] for name in names}
                check_graph(self.path, relpath, fmt, verified, self.allow)
        self._checked[relpath] = stamps

    def _sidecars(self, relpath: str) -> list[str]:
        graphs = {graph.path for some in self.manifest.graphs.values() for graph in some}
        if relpath not in graphs or "/" not in relpath:
            return []
        return [
            name
            for name in entries_under(self.manifest.files, relpath.rsplit("/", 1)[0])
            if name not in graphs and not any(parent in graphs for parent in parents(name))
        ]

    def _verify(self, name: str) -> None:
        # Where links lead can have changed since the bundle was opened.
        target = _locate(self.path, name, self.manifest.files[name])
        try:
            stamp = file_stamp(target)
            if self._verified.get(name) == stamp:
                return
            found = sha256_file(target)
        except OSError as error:
            raise _unreadable(self.path / name, error) from error
        if found != self.manifest.files[name]:
            raise ArtifactError(
                f"{self.path / name} is not the file that was exported (sha256 differs); {_REMEDY}"
            )
        self._verified[name] = stamp


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of a bundle directory, not the files it lists.

    Raises:
        UsageError: if there is nothing at ``path``.
        ArtifactError: if it is not a bundle, of another version, or damaged.
    """
    return _parse(path, read_manifest_bytes(path))


def present_manifest(bundle: Bundle) -> Manifest:
    """The manifest as it is now of a bundle that was opened before.

    It is read, and parsed only if it has changed since.

    Raises:
        ArtifactError: if the bundle is gone, or its manifest is damaged.
    """
    data = read_manifest_bytes(bundle.path)
    return bundle.manifest if data == bundle.manifest_bytes else _parse(bundle.path, data)


def read_manifest_bytes(path: Path) -> bytes:
    """The bytes of a bundle's manifest, unchecked.

    Raises:
        UsageError: if there is nothing at ``path``.
        ArtifactError: if it is not a bundle, or its manifest is too large or cannot be read.
    """
    source = path / MANIFEST_NAME
    try:
        if not path.exists():
            hint = export_hint(path) or similar_name(path) or names_hint(path)
            raise UsageError(address_problem(path) or f"there is no bundle at {path}{hint}")
        if not path.is_dir() or not os.path.lexists(source):
            raise ArtifactError(
                f"{path} is not a bundle: that is a directory with a {MANIFEST_NAME}"
                f"{export_hint(path)}"
            )
        data = _read_capped(path, source)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"not a usable path: {str(path)!r}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise _unreadable(source, error) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(
            f"{source} is larger than {MAX_MANIFEST_BYTES >> 20} MiB, the limit of a manifest; "
            f"{_REMEDY}"
        )
    return data


def _parse(path: Path, data: bytes) -> Manifest:
    source = path / MANIFEST_NAME
    try:
        version = msgspec.json.decode(data, type=_Head).format_version
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"{path} was made by a newer version of Scaleport (bundle format {version}, this "
                f"one reads {FORMAT_VERSION}); upgrade Scaleport or {_REMEDY}"
            )
        if version != FORMAT_VERSION:
            raise ArtifactError(f"{source} has unknown bundle format {version}; {_REMEDY}")
        manifest = decode(data)
        refuse_duplicates(data)
        check_consistent(manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = one_line(error) or "it is not JSON"
        raise ArtifactError(f"{source} is damaged: {reason}; {_REMEDY}") from error
    return manifest


def open_bundle(
    path: Path | str,
    verify: Literal["all", "lazy"] = "lazy",
    allow: Collection[str] = (),
    verify_key: Path | str | None = None,
) -> Bundle:
    """Open a bundle.

    Args:
        path: the bundle directory, or the name of a model, see :mod:`scaleport.ready`.
        verify: ``lazy`` hashes a file when it is first used, ``all`` hashes every file now. The
            existence and size of every file are always checked, except in folders that the user
            may not read.
        allow: operations whose code comes from elsewhere, names of
            :data:`scaleport.bundle.graph_checks.ALLOWABLE`.
        verify_key: a public key; a manifest that is not signed with it is refused before it is
            parsed, see :mod:`scaleport.bundle.signature`.

    Raises:
        UsageError: if there is nothing at ``path``, an allowance is unknown, or the key is not one.
        ArtifactError: if it is not a bundle, of another version, altered or damaged, or not signed.
        BackendError: if a key is given and the package ``cryptography`` is not installed.
    """
    path = Path(path)
    if not holds(path.exists):  # then it may be the name of a model
        path = find_bundle(path)
    data = read_manifest_bytes(path)
    if verify_key is not None:
        check_signature(path, data, Path(verify_key))
    manifest = _parse(path, data)
    for name, entry in manifest.files.items():
        try:
            _locate(path, name, entry)
        except ArtifactError as error:
            # Refused when it is used: a backend reads its own graphs only.
            if not isinstance(error.__cause__, PermissionError):
                raise
    key = None if verify_key is None else Path(verify_key)
    bundle = Bundle(path, manifest, allow, data, key)
    if verify == "all":
        bundle.verify()
    return bundle


def _read_capped(root: Path, source: Path) -> bytes:
    if not _inside(root, source) or not stat.S_ISREG(source.stat().st_mode):
        raise ArtifactError(f"{source} is not a regular file of the bundle; {_REMEDY}")
    with source.open("rb") as file:
        return file.read(MAX_MANIFEST_BYTES + 1)


def _inside(root: Path, path: Path) -> bool:
    return path.resolve(strict=True).is_relative_to(root.resolve(strict=True))


def _locate(root: Path, name: str, entry: FileEntry) -> Path:
    """Path of a listed file, after checks of everything but its bytes."""
    path = root / name
    try:
        if not _inside(root, path):
            raise ArtifactError(f"{path} is a link out of the bundle; {_REMEDY}")
        status = path.stat()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; copy the whole bundle or {_REMEDY}") from None
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path} is not a regular file; {_REMEDY}")
    if status.st_size != entry.bytes:
        raise ArtifactError(
            f"{path} has {status.st_size} bytes instead of {entry.bytes}; "
            f"copy it again or {_REMEDY}"
        )
    return path


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ArtifactError(f"cannot read {path}: {reason}; check its permissions or {_REMEDY}")
