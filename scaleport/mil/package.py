"""The files of an ``.mlpackage``: the model specification and its weight file."""

from __future__ import annotations

import importlib
import importlib.util
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scaleport.errors import ArtifactError, BackendError

_PROTO_ALIAS: Final = "scaleport_coremltools_proto"

# One weight is a 64-byte header followed, at its offset, by the raw little-endian values.
_SENTINEL: Final = 0xDEADBEEF
_BLOB_HEADER: Final = struct.Struct("<IIQQ")
_BLOB_TYPES: Final[dict[int, np.dtype[Any]]] = {
    1: np.dtype("<f2"),
    2: np.dtype("<f4"),
    3: np.dtype("u1"),
    4: np.dtype("i1"),
    6: np.dtype("<i2"),
    7: np.dtype("<u2"),
    14: np.dtype("<i4"),
    15: np.dtype("<u4"),
}


def load_schema() -> ModuleType:
    """Coremltools' generated protobuf classes: the module ``Model_pb2``.

    Raises:
        BackendError: if coremltools is not installed.
    """
    loaded = sys.modules.get("coremltools.proto.Model_pb2")
    if loaded is not None:
        return loaded
    if _PROTO_ALIAS not in sys.modules:
        # Importing coremltools itself would import torch wherever torch is installed. Its proto
        # package needs neither, so it is loaded from its files under a name of our own; protobuf
        # gives both names the same message classes.
        root = importlib.util.find_spec("coremltools")
        if root is None or root.origin is None:
            raise BackendError("coremltools is not installed: pip install 'scaleport[coreml]'")
        folder = Path(root.origin).parent / "proto"
        spec = importlib.util.spec_from_file_location(
            _PROTO_ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None or not folder.is_dir():
            raise BackendError("this coremltools has no proto package; version 9.0 has one")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_PROTO_ALIAS] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[_PROTO_ALIAS]
            raise BackendError(f"coremltools' proto package does not load: {error}") from error
    return importlib.import_module(f"{_PROTO_ALIAS}.Model_pb2")


@dataclass(frozen=True)
class Weights:
    """The weight file of a package, in memory."""

    data: bytes

    def read(self, offset: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        """``count`` values of the weight whose header lies at ``offset``.

        Raises:
            ArtifactError: if there is no such weight, or its type or size differ.
        """
        if not 0 <= offset <= len(self.data) - _BLOB_HEADER.size:
            raise ArtifactError(f"the weight file ends before offset {offset}")
        sentinel, kind, size, start = _BLOB_HEADER.unpack_from(self.data, offset)
        if sentinel != _SENTINEL:
            raise ArtifactError(f"no weight starts at offset {offset} of the weight file")
        if _BLOB_TYPES.get(kind) != dtype:
            raise ArtifactError(f"the weight at offset {offset} is not of type {dtype}")
        if size != count * dtype.itemsize or start + size > len(self.data):
            raise ArtifactError(f"the weight at offset {offset} is cut off or of another size")
        return np.frombuffer(self.data, dtype, count, start)


@dataclass(frozen=True)
class Package:
    """An opened ``.mlpackage``."""

    path: Path
    model: Any
    """The parsed ``Model`` message."""
    folder: Path
    """The directory of the model file, which weight file names are relative to."""

    def weights(self, name: str) -> Weights:
        """Read a weight file by the name that the program gives it.

        Raises:
            ArtifactError: if it is missing or outside the package.
        """
        prefix = "@model_path/"
        if not name.startswith(prefix):
            raise ArtifactError(f"{self.path.name}: unknown weight file {name!r}")
        return Weights(_read(_inside(self.folder, name[len(prefix) :]), self.path))


def open_package(path: Path) -> Package:
    """Open an ``.mlpackage`` and parse its model specification.

    Args:
        path: the package directory.

    Raises:
        ArtifactError: if it is no package, is damaged, or its model is not an ML program.
        BackendError: if coremltools is not installed.
    """
    try:
        manifest = json.loads(_read(path / "Manifest.json", path))
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        if not isinstance(item, str):
            raise TypeError("path of the model")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path.name}: its Manifest.json names no model") from error
    file = _inside(path / "Data", item)
    model = load_schema().Model()
    try:
        model.ParseFromString(_read(file, path))
    except ArtifactError:
        raise
    except Exception as error:  # protobuf's error class depends on its implementation
        raise ArtifactError(f"{path.name}: the model specification is damaged") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise ArtifactError(f"{path.name}: the model is not an ML program")
    return Package(path, model, file.parent)


def _read(file: Path, package: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{package.name}: cannot read {file.name}: {error.strerror}") from error


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise ArtifactError(f"a file name leaves the package: {name!r}")
    return folder / parts
