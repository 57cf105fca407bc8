"""Which files name a backend or a format: everything else asks the backend itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from scaleport.export.formats import FORMATS
from scaleport.runtimes.registry import own_backends

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scaleport"
ROOMS = ("runtimes", "export")
"""Where backends and formats live."""
PACKAGE_NAMES = ("needs", "find_spec")
"""Functions that take the name of a package or extra, which may be called like a backend."""


def literals(tree: ast.AST, names: set[str]) -> set[str]:
    """The names that a module holds as texts, but for those of packages."""
    packages = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in PACKAGE_NAMES
        for argument in node.args
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names and id(node) not in packages
    }


def naming_files() -> set[str]:
    names = {backend.name for backend in own_backends()} | set(FORMATS)
    assert len(names) == 7
    found = set()
    for path in PACKAGE.rglob("*.py"):
        relpath = path.relative_to(PACKAGE)
        if relpath.parts[0] not in ROOMS and literals(ast.parse(path.read_text("utf-8")), names):
            found.add(relpath.as_posix())
    return found


def test_what_counts() -> None:
    code = 'find_spec("onnx"); needs("onnx", "x"); {"onnx": 1}; f(g("onnx")); f(form == "onnx")'
    assert literals(ast.parse(code), {"onnx"}) == {"onnx"}
    assert literals(ast.parse('find_spec("onnx"); cli.needs("onnx", "x")'), {"onnx"}) == set()
    assert literals(ast.parse('load(b, "onnx")'), {"onnx"}) == {"onnx"}


def test_few_files_name_a_backend_and_the_page_says_why() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (part,) = re.findall(r"^## Who may name a backend$(.*?)(?=^## |\Z)", text, re.M | re.S)
    listed = re.findall(r"^- `scaleport/([\w/]+\.py)`: \S", part, re.M)
    assert len(listed) <= 5
    assert naming_files() == set(listed)
