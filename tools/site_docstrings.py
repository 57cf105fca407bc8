"""Docstrings as the site shows them: roles of reStructuredText become plain code.

Loaded by mkdocstrings through ``mkdocs.yml``; docstrings themselves keep the roles, which editors
and Sphinx understand.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_LITERAL = re.compile(r"^(.*?):?::$", re.MULTILINE)


def as_markdown(text: str) -> str:
    """A docstring in which roles are the last part of their name, and ``::`` announces code."""
    text = _ROLE.sub(lambda role: f"`{role[1].rsplit('.', 1)[-1]}`", text)
    return _LITERAL.sub(lambda line: f"{line[1]}:" if line[1] else "", text)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
