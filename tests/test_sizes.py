"""How large commands, functions and modules may be, and how many ways may lead through them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from radon.complexity import cc_visit

from scaleport.cli.main import VERBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scaleport"
MODULES = sorted(PACKAGE.rglob("*.py"))

COMMAND = 60
"""Lines of a command's body: options are declared above it, one by one, and are not counted."""
FUNCTION = 80
"""Lines of a function, with its declaration and its docstring."""
COMPLEXITY = 15
"""McCabe's cyclomatic complexity, as radon counts it."""
MODULE = 400
"""Lines of a module."""
REASON = "Long because"
"""How a docstring begins the reason for a function that is larger."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def body_lines(node: Function) -> int:
    """Lines after the docstring."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def is_excused(node: Function) -> bool:
    return REASON in (ast.get_docstring(node) or "")


COMMANDS = {
    (Path(import_module(f"scaleport.cli.{verb.module}").__file__), verb.function)
    for verb in VERBS.values()
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_and_have_few_ways_through_them(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") < MODULE
    nodes = list(functions(path))
    excused = {node.lineno for node in nodes if is_excused(node)}
    long = {}
    for node in nodes:
        if (path, node.name) in COMMANDS:
            lines, most = body_lines(node), COMMAND
        else:
            lines, most = node.end_lineno - node.lineno + 1, FUNCTION
        if lines > most and node.lineno not in excused:
            long[node.name] = lines
    assert not long
    blocks = [
        part for block in cc_visit(source) for part in (block, *getattr(block, "methods", ()))
    ]
    tangled = {
        block.name: block.complexity
        for block in blocks
        if block.letter in "FM" and block.complexity > COMPLEXITY
        and not any(block.lineno <= line <= block.endline for line in excused)
    }  # fmt: skip
    assert not tangled


def test_commands_are_what_the_command_line_lists():
    found = {(path, node.name) for path, _ in COMMANDS for node in functions(path)}
    assert found >= COMMANDS
    assert len(COMMANDS) == len(VERBS)


def test_an_excuse_is_used():
    """A reason for a function that is short by now goes."""
    idle = []
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        blocks = [p for b in cc_visit(source) for p in (b, *getattr(b, "methods", ()))]
        for node in functions(path):
            ways = [b.complexity for b in blocks if b.lineno <= node.lineno <= b.endline]
            long = node.end_lineno - node.lineno + 1 > FUNCTION
            if is_excused(node) and not long and max(ways, default=0) <= COMPLEXITY:
                idle.append(f"{path.name}:{node.lineno} {node.name}")
    assert not idle
