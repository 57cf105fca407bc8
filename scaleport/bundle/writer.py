"""Writing a bundle: all of it or nothing.

Files are written to a hidden staging directory beside the target and take its place by a rename
when they are complete, hashed and on disk. Whenever the process stops, the target is the old
bundle, the new bundle, or absent; what was left over is cleared by the next export of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
from filelock import BaseFileLock, FileLock, Timeout

from scaleport.atomic import Pending, replace_folder
from scaleport.bundle.integrity import check_consistent, path_key, path_problem, sha256_file
from scaleport.bundle.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    decode,
    encode,
)
from scaleport.bundle.reader import (
    MAX_MANIFEST_BYTES,
    Bundle,
    present_manifest,
    read_manifest,
)
from scaleport.errors import OutputError, UsageError, one_line
from scaleport.paths import holds, make_folder, remove_empty

_FULL = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO")
    if hasattr(errno, name)
)
_PATIENCE: Final = 0.2
"""Seconds: a holder that is just leaving removes the file, and the next try makes a new one."""


class BundleWriter:
    """Context manager that writes one bundle.

    ::

        with BundleWriter(Path("photo.bundle"), overwrite=True) as writer:
            export_to(writer.path("onnx/fp32/encode.onnx"))
            writer.finish(manifest)

    Without :meth:`finish`, or after an exception, nothing is written.

    Args:
        target: the bundle directory to write; missing folders above it are made.
        overwrite: whether an existing bundle may be replaced. A directory that is not a bundle
            never is.

    Raises:
        OutputError: on entry, if the target exists and may not be replaced, is being written by
            another process, or its place is not writable; on leaving, if the disk was full.
    """

    def __init__(self, target: Path, overwrite: bool) -> None:
        self.target = target
        self.overwrite = overwrite
        self._open = False
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> BundleWriter:
        # Hidden names go beside what a link points to: a rename works on one file system only.
        try:
            self._final = self.target.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise OutputError(f"cannot write {self.target}: not a usable path") from error
        if not self._final.name:
            raise OutputError(f"cannot write {self.target}: it has no name")
        self._made = make_folder(self._final.parent)
        self._staging = self._final.with_name(f".{self._final.name}.staging")
        self._aside = self._final.with_name(f".{self._final.name}.old")
        try:
            self._lock = locked(self._final.with_name(f".{self._final.name}.lock"), self.target)
            try:
                self._recover()
                self._check_target()
                self._staging.mkdir()
                self._folder_mode = stat.S_IMODE(self._staging.stat().st_mode)
            except BaseException:
                unlock(self._lock)
                raise
        except BaseException as error:
            remove_empty(self._made)
            if isinstance(error, OSError):
                raise _unwritable(self.target, error) from error
            raise
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        try:
            if self._staging.exists():
                shutil.rmtree(self._staging, ignore_errors=True)
        finally:
            if self._lock is not None:
                unlock(self._lock)
            remove_empty(self._made)
        # Exporters write with many libraries; whichever of them meets it, a full disk is one.
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _unwritable(self.target, error) from error

    def path(self, relpath: str) -> Path:
        """Where to write one file of the bundle; its directory is made.

        Args:
            relpath: place in the bundle, with forward slashes, e.g. ``onnx/fp32/encode.onnx``. An
                exporter may also make a directory there (``.mlpackage``), or further files beside
                it (external data): every file found is listed in the manifest.

        Raises:
            UsageError: if the path may not be listed in a manifest, or the writer is not open.
            OutputError: if the directory cannot be made.
        """
        self._require_open()
        problem = path_problem(relpath)
        if problem:
            raise UsageError(f"the bundle path {relpath!r} {problem}")
        path = self._staging / relpath
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.target, error) from error
        return path

    def finish(self, manifest: Manifest) -> Manifest:
        """Hash all files, write the manifest last, and put the bundle in its place.

        Args:
            manifest: everything but ``files``, which is replaced.

        Returns:
            The manifest as written, with ``files``.

        Raises:
            UsageError: if the writer is not open.
            OutputError: if the manifest does not fit the files or the schema, or something cannot
                be written; the old bundle is still there then.
        """
        self._require_open()
        try:
            manifest = msgspec.structs.replace(manifest, files=_list_files(self._staging))
            data = _checked_bytes(manifest)
            (self._staging / MANIFEST_NAME).write_bytes(data)
            _follow_umask(self._staging, self._folder_mode)
            _sync_tree(self._staging)
            self._check_target()
            self._swap()
        except OSError as error:
            raise _unwritable(self.target, error) from error
        self._open = False
        shutil.rmtree(self._aside, ignore_errors=True)
        return manifest

    def _require_open(self) -> None:
        if not self._open:
            raise UsageError("the bundle writer is not open, or the bundle is already finished")

    def _recover(self) -> None:
        """Clear what a killed export left; only the holder of the lock does so."""
        if self._aside.exists():
            if self._final.exists():
                shutil.rmtree(self._aside)
            else:  # killed between the two renames of the swap
                self._aside.rename(self._final)
        if self._staging.exists():
            shutil.rmtree(self._staging)

    def _check_target(self) -> None:
        if not os.path.lexists(self._final):
            return
        if not self.overwrite:
            raise OutputError(f"{self.target} exists; choose another name or allow overwriting")
        if not self._final.is_dir() or not _looks_like_manifest(self._final / MANIFEST_NAME):
            raise OutputError(
                f"{self.target} exists and is not a bundle, it is not overwritten; remove it or "
                "choose another name"
            )

    def _swap(self) -> None:
        replace_folder(self._staging, self._final, self._aside)
        _sync_directory(self._final.parent)


def update_manifest(
    bundle: Path | Bundle, manifest: Manifest, void_signature: bool = False
) -> None:
    """Replace the manifest of a bundle, e.g. to store parity results, and nothing else.

    A signature is one of the present manifest and would be void; it is never left beside another.

    Args:
        bundle: its directory, or the bundle if it is open.
        manifest: the new manifest; its ``files`` must be those of the present one.
        void_signature: whether the signature of a signed bundle may be removed.

    Raises:
        ArtifactError: if the present bundle is damaged.
        OutputError: if the bundle is signed and may not lose its signature, was exported anew in
            the meantime, the manifest does not follow the schema, or it cannot be written; the old
            manifest is still there then.
    """
    data = _checked_bytes(manifest)
    bundle_dir = bundle.path if isinstance(bundle, Bundle) else bundle
    if is_signed(bundle_dir) and not void_signature:
        raise OutputError(
            f"{bundle_dir} is signed, and another manifest would void the signature: run "
            "scaleport validate with --store, then sign it again"
        )
    new = Pending(bundle_dir / MANIFEST_NAME, follow=False)
    try:
        new.write(data)
        # Checked after the temporary file is in the directory: if an export swaps the bundle from
        # here on, the file goes with the old one and the replacement below fails.
        present = present_manifest(bundle) if isinstance(bundle, Bundle) else read_manifest(bundle)
        if present.files != manifest.files:
            raise OutputError(f"{bundle_dir} has changed since it was opened; run it again")
        # First: a signature that says nothing is better gone than found to be wrong.
        (bundle_dir / SIGNATURE_NAME).unlink(missing_ok=True)
        new.commit()
        _sync_directory(bundle_dir)
    except OSError as error:
        raise _unwritable(bundle_dir / MANIFEST_NAME, error) from error
    finally:
        new.discard()


def is_signed(bundle_dir: Path) -> bool:
    """Whether a bundle holds a signature, valid or not."""
    return holds(lambda: os.path.lexists(bundle_dir / SIGNATURE_NAME))


def _looks_like_manifest(path: Path) -> bool:
    """Whether a file is, or once was, a bundle's manifest; other tools use the same file name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    try:
        content = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return True  # damaged: replacing it is what the user wants to do about it
    return isinstance(content, dict) and "format_version" in content


def _list_files(root: Path) -> dict[str, FileEntry]:
    files: dict[str, FileEntry] = {}
    keys: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        relpath = path.relative_to(root).as_posix()
        problem = path_problem(relpath)
        if path.is_symlink() or not path.is_file():
            problem = "is not a regular file"
        elif keys.setdefault(path_key(relpath), relpath) != relpath:
            problem = f"differs from {keys[path_key(relpath)]!r} in case only"
        if problem:
            raise OutputError(f"cannot put {relpath!r} into a bundle: it {problem}")
        files[relpath] = sha256_file(path)
    return files


def _follow_umask(root: Path, for_folders: int) -> None:
    """Give every file the permissions of a plain new one, and every folder those of one.

    Exporters write with many libraries; some of them, such as coremltools, make files that only
    their owner can read. The manifest was made plainly and shows what umask and default access
    lists say here; asking for the umask itself would change it for other threads for a moment.
    """
    if sys.platform == "win32":
        return
    for_files = stat.S_IMODE((root / MANIFEST_NAME).stat().st_mode)
    for path in (root, *root.rglob("*")):
        wanted = for_folders if path.is_dir() else for_files
        if stat.S_IMODE(path.stat().st_mode) != wanted:
            path.chmod(wanted)


def _checked_bytes(manifest: Manifest) -> bytes:
    """Encode a manifest and make sure that it can be read back: structs do not check themselves."""
    try:
        data = encode(manifest)
        check_consistent(decode(data))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        reason = one_line(error)
        raise OutputError(f"the manifest of {manifest.name!r} is not valid: {reason}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise OutputError(f"the manifest of {manifest.name!r} is over the limit of its size")
    return data


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _sync_directory(root)


def _sync_directory(path: Path) -> None:
    """Make renames and new names durable; a directory cannot be synced on Windows."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(target: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {target}: {error.strerror or error}")


def locked(path: Path, target: Path) -> BaseFileLock:
    """Lock a target; the lock dies with the process.

    Args:
        path: the lock's file, which is made.
        target: what it stands for.

    Raises:
        OutputError: if another writer holds it.
        OSError: if the file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 4)
    except Timeout:
        raise OutputError(
            f"another export is writing {target}; wait for it or choose another name"
        ) from None
    return lock


def unlock(lock: BaseFileLock) -> None:
    """Remove the file while the lock is held, then let go; harmless when repeated."""
    if lock.is_locked:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
