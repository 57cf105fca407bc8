"""The changelog keeps its form: sections of Keep a Changelog, each change said once."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_versions_have_the_sections_of_keep_a_changelog() -> None:
    versions = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert versions[0].startswith("[Unreleased]")
    for version in versions:
        assert re.match(r"\[(Unreleased|\d+\.\d+\.\d+)\]", version)
        sections = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert sections == [kind for kind in KINDS if kind in sections]
        assert sections
        before = version[: version.index("### ")]
        assert not re.search(r"^- ", before, re.MULTILINE), "a change outside of every section"


def test_every_change_is_said_once() -> None:
    changes = re.findall(r"^- (.{30})", TEXT, re.MULTILINE)
    again = {change for change in changes if changes.count(change) > 1}
    assert len(changes) > 50
    assert not again
