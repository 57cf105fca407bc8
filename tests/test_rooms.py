"""Which room may import from which: downwards only, inside functions too; and no cycles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scaleport"

FOUNDATION = {
    "aliases", "atomic", "callables", "card", "errors", "export_cache", "extras",
    "figures", "grid", "paths", "plugins", "progress", "shipped", "tensor",
}  # fmt: skip
"""Modules of their own, which no room is above; among themselves they have an order too."""

LEVELS = (
    ("foundation",),
    ("bundle", "ready"),
    ("catalogue",),
    ("imaging", "models"),
    ("mil", "runtimes"),
    ("batch", "export"),
    ("validation",),
    ("benchmark", "calibration", "evaluation", "serving", "testing", "training"),
    ("cli", "pytest_plugin"),
    ("scaleport", "__main__"),
)
"""From the lowest to the highest. A room imports from lower levels, and from itself."""

UPWARDS = {
    ("bundle.reader", "ready"): "a model's name stands for its bundle wherever one is opened",
    ("ready", "bundle"): "a model's scales and size are those of its bundle",
    ("runtimes.kinds", "mil"): "which operations a Core ML program holds is read from the program",
    ("runtimes.coreml", "mil"): "without a Mac the evaluator is what runs Core ML programs",
    ("runtimes.coreml_inside", "mil"): "the evaluator shows every value of a Core ML program",
    ("mil.evaluator", "runtimes"): "it checks what it is fed as every session does",
    ("runtimes.tensorrt_inside", "export"): (
        "TensorRT shows a tensor only if the engine is built again with it as an output"
    ),
    ("training.__main__", "cli"): "python -m scaleport.training is the command",
}
"""Imports that are none of those, each with its reason."""


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    for child in ast.iter_child_nodes(tree):
        if not is_for_types(child):
            yield child
            yield from nodes(child)


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or "scaleport"] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules of this package that one imports, without the package's name."""
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in named:
            first, _, rest = name.partition(".")
            while first == "scaleport" and rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            if first == "scaleport" and rest:
                yield rest


GRAPH = {name: sorted(set(imports(path)) - {name}) for name, path in MODULES.items()}


def room(module: str) -> str:
    first = module.partition(".")[0]
    return "foundation" if first in FOUNDATION else first


def level(module: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room(module) in rooms)


def test_every_room_has_a_level():
    known = {name for rooms in LEVELS for name in rooms}
    assert {room(module) for module in MODULES} == known
    assert {module for module in MODULES if module in FOUNDATION} == FOUNDATION


def test_imports_go_downwards():
    upwards = {
        (module, room(other))
        for module, others in GRAPH.items()
        for other in others
        if room(module) != room(other) and level(module) <= level(other)
    }
    assert upwards == set(UPWARDS)


def cycles(graph: dict[str, list[str]]) -> list[list[str]]:
    """Sets of modules that import each other (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found)


CYCLES = {
    ("models.base", "models.small_form"): "a deploy form makes its stages for smaller pictures",
    ("bundle.reader", "ready"): "a name stands for a bundle, and a bundle tells what it is for",
}
"""Modules that import each other, inside functions at least, with the reason."""


def test_modules_import_each_other_only_where_that_is_said():
    assert {tuple(part) for part in cycles(GRAPH)} == set(CYCLES)


def test_cycles_are_found():
    graph = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": [], "e": ["d", "f"], "f": ["e"]}
    assert cycles(graph) == [["a", "b", "c"], ["e", "f"]]


def test_the_docs_name_the_same_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Which room imports which")[1].split("\n## ")[0]
    listed = [
        tuple(re.findall(r"`([a-z_]+)`", line.split(":")[0]))
        for line in section.splitlines()
        if re.match(r"[0-9]+\. ", line)
    ]
    assert listed == [tuple(rooms) for rooms in LEVELS[1:-1]]
    for module, _ in UPWARDS:
        assert f"`{module}`" in section


PUBLIC_MODULES = ("scaleport.errors", "scaleport.grid", "scaleport.progress")
"""As docs/architecture.md lists them, those that programs need."""


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_import_public_names_only(path: Path) -> None:
    import scaleport

    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            private = [a.name for a in node.names if a.name.startswith("scaleport.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scaleport"):
            public = node.module == "scaleport"
            private = [a.name for a in node.names if not public or a.name not in dir(scaleport)]
            private = [] if node.module in PUBLIC_MODULES else private
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "scaleport":
            private = [] if node.attr in dir(scaleport) else [node.attr]
        else:
            continue
        assert not private
