"""The manifest's schema as a JSON Schema (2020-12), for tools in other languages.

``python -m scaleport.bundle.schema`` writes it beside this module; a test holds the two together.
What no schema says is listed in its description.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from scaleport.bundle.manifest import FORMAT_VERSION, Manifest

FILE = Path(__file__).with_name("manifest.schema.json")

_BEYOND = (
    "manifest.json of a Scaleport bundle. Beyond this schema a reader refuses: a key that is "
    "there twice; listed paths that are absolute, hold '..', '.', an empty part, a backslash, a "
    "colon, an unprintable character or a Windows device name, are more than 16 directories deep, "
    "end in a dot or a space, or differ in case only; graphs that are no listed file; ranges with "
    "min > max; more than 64 GiB in all; a model configuration that is nested more than 32 deep "
    "or holds texts of more than 4096 characters; a document of more than 16 MiB."
)


def manifest_schema() -> dict[str, Any]:
    """The schema, generated from :class:`~scaleport.bundle.manifest.Manifest`."""
    schema = msgspec.json.schema(Manifest)
    definitions = schema["$defs"]
    definitions["Manifest"]["properties"]["format_version"]["const"] = FORMAT_VERSION
    definitions["Manifest"]["description"] = _BEYOND
    # Python's end of a text; in the dialect of JSON Schema that is "$".
    text = json.dumps(schema).replace(r"\\Z", "$")
    plain: dict[str, Any] = json.loads(text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **plain}


def schema_text() -> str:
    """What the file holds."""
    return json.dumps(manifest_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
