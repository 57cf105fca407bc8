from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaleport.bundle.manifest import MANIFEST_NAME
from scaleport.bundle.reader import read_manifest
from scaleport.bundle.schema import FILE, manifest_schema, schema_text
from scaleport.errors import ArtifactError

jsonschema = pytest.importorskip("jsonschema")

# What the reader refuses and no schema says; one of these is in its message then.
BEYOND = (
    "the listed path",
    "differ in case only",
    "not among the listed files",
    "smallest scale is larger",
    "is not min <= opt <= max",
    "hold more than 64 GiB",
    "the model's configuration",
    "duplicate key",
    "newer version",
)


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text(encoding="utf-8") == schema_text()


def test_a_written_manifest_follows_the_schema(bundle: Path, validator: Any) -> None:
    validator.validate(json.loads((bundle / MANIFEST_NAME).read_bytes()))


VALUES = st.sampled_from(
    [None, True, 0, -1, 3, 1 << 24, (1 << 24) + 1, 1 << 41, 0.5, -0.5, 1e300, "", "x", "x" * 600,
     "x" * 5000, "fp32", "query", "a/b", "..", [], {}, [1, 2], ["N"], {"x": 1}, {"name": "x"}]
)  # fmt: skip


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_reader_and_schema_agree(bundle: Path, validator: Any, data: st.DataObject) -> None:
    source = bundle / MANIFEST_NAME
    original = source.read_bytes()
    content = json.loads(original)
    node: Any = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        node = inner
    action = data.draw(st.sampled_from(["set", "set", "drop", "rename"]))
    if action == "set":
        node[key] = data.draw(VALUES)
    elif action == "drop":
        node.pop(key)
    elif isinstance(node, dict):
        node[data.draw(st.sampled_from(["", "x", "a b", "x" * 300, "x" * 600]))] = node.pop(key)
    fits = validator.is_valid(content)
    source.write_text(json.dumps(content))
    try:
        read_manifest(bundle)
    except ArtifactError as error:
        if fits:
            assert any(words in str(error) for words in BEYOND), (str(error), node)
    else:
        assert fits, [e.message for e in validator.iter_errors(content)]
    finally:
        source.write_bytes(original)
