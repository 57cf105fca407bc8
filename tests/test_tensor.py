"""The one description of a tensor: what it stores, and what libraries' dimensions become in it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scaleport.bundle import manifest
from scaleport.errors import UsageError
from scaleport.runtimes.base import checked
from scaleport.tensor import ELEMENT_TYPES, UNNAMED, TensorSpec, dimension, element_type

PACKAGE = Path(manifest.__file__).parents[1]
STORED = sorted(PACKAGE.glob("*/*.bundle/manifest.json"))
IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.parent.name)
def test_stored_manifests_are_read_and_written_unchanged(path: Path) -> None:
    stored = json.loads(path.read_bytes())
    again = json.loads(manifest.encode(manifest.decode(path.read_bytes())))
    assert {key: again[key] for key in stored} == stored


def test_there_are_stored_manifests() -> None:
    assert len(STORED) >= 5


def test_form_in_a_manifest() -> None:
    stored = '{"name":"image","dtype":"float32","shape":["N",3,"H","W"]}'
    assert msgspec.json.encode(IMAGE).decode() == stored
    assert msgspec.json.decode(stored, type=TensorSpec) == IMAGE


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"dtype": "float64"},
        {"shape": [-1, 3]},
        {"shape": ["?"]},
        {"shape": [1] * 9},
        {"size": 1},
    ],
)
def test_what_no_manifest_may_hold(change: dict[str, object]) -> None:
    stored = {**msgspec.to_builtins(IMAGE), **change}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(stored), type=TensorSpec)


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (3, None, 3),
        (0, "N", 0),
        ("H8", None, "H8"),
        (-1, "Wo", "Wo"),
        (-1, None, UNNAMED),
        (-1, "", UNNAMED),
        (None, None, UNNAMED),
        ("floor(2*H) + 1", None, UNNAMED),
        ("H\n", None, UNNAMED),
        ("H" * 129, None, UNNAMED),
    ],
)
def test_dimensions_of_libraries(given: object, name: str | None, expected: int | str) -> None:
    found = dimension(given, name)
    assert found == expected
    msgspec.convert({"name": "x", "dtype": "int32", "shape": [found]}, TensorSpec)


def test_element_types_are_numpys() -> None:
    assert [np.dtype(name).name for name in ELEMENT_TYPES] == list(ELEMENT_TYPES)
    assert [element_type(name) for name in (*ELEMENT_TYPES, "bool")] == [*ELEMENT_TYPES, None]


def test_feeds_are_compared_with_it() -> None:
    for shape in ((1, 3, 4, 5), (2, 3, 7, 7)):
        assert checked({"image": np.zeros(shape, np.float32)}, [IMAGE])["image"].shape == shape
    for wrong, words in (
        (np.zeros((1, 4, 4, 5), np.float32), "must have shape Nx3xHxW, got 1x4x4x5"),
        (np.zeros((3, 4, 5), np.float32), "must have shape Nx3xHxW, got 3x4x5"),
        (np.zeros((1, 3, 4, 5)), "must be float32, got float64"),
    ):
        with pytest.raises(UsageError, match=words):
            checked({"image": wrong}, [IMAGE])
