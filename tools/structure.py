"""The structure of the package in figures, of one tree or of two side by side.

``python -m tools.structure TREE [TREE]`` reads the sources below ``TREE/scaleport`` and prints a
table in Markdown; the last tree also gets its rooms, file by file and line by line. Nothing is
imported. ``--duplicates`` adds pairs of alike pieces, which jscpd finds through ``npx``. The table
of ``docs/architecture.md`` was made with it.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean

from radon.complexity import cc_visit

from scaleport.errors import UsageError

PACKAGE = "scaleport"
LONG = 60
"""Lines from which a function counts as long."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_JSCPD = ("npx", "--yes", "jscpd@4.0.5", "--min-tokens", "60", "--min-lines", "6", "--silent")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its path, its lines, its syntax."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")

    @property
    def room(self) -> str:
        """The folder below the package, or that of the modules beside the folders."""
        parts = self.name.split(".")
        folder = len(parts) > 2 or self.path.name == "__init__.py"
        return parts[1] if folder and len(parts) > 1 else "(modules)"

    def functions(self) -> Iterator[Function]:
        """All functions and methods."""
        return (node for node in ast.walk(self.tree) if isinstance(node, _FUNCTIONS))

    def classes(self) -> Iterator[ast.ClassDef]:
        """All classes."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


def modules(tree: Path) -> dict[str, Module]:
    """The modules of a tree by dotted name.

    Raises:
        UsageError: if there is no package in the tree.
    """
    found = {}
    for path in sorted((tree / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(tree).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, path.read_text(encoding="utf-8"))
    if not found:
        raise UsageError(f"{tree} holds no package {PACKAGE}; name the root of a checkout")
    return found


def length(function: Function) -> int:
    """Lines of a function with its docstring, without its decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """Parameters of a function, without ``self`` and ``cls``."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([a for a in named if a.arg not in ("self", "cls")])


def _fields(kind: ast.ClassDef) -> set[str]:
    return {
        node.target.id
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def array_aliases(found: Iterable[Module]) -> list[str]:
    """Module-level names for a NumPy array type."""
    return [
        f"{module.name}.{target.id}"
        for module in found
        for node in module.tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("npt.NDArray")
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def atomic_writers(found: Iterable[Module]) -> list[str]:
    """Modules that put a finished file in its place by renaming it."""
    return [
        module.name
        for module in found
        if any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("replace", "rename")
            and (len(node.args) == 1 or ast.unparse(node.func) == "os.replace")
            and not node.keywords
            for node in ast.walk(module.tree)
        )
    ]


def locks(found: Iterable[Module]) -> list[str]:
    """Modules that lock files themselves or through a library."""
    names = {"fcntl", "msvcrt", "filelock"}
    return [module.name for module in found if names & set(_outside(module))]


def _outside(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def progress_protocols(found: Iterable[Module]) -> list[str]:
    """Ways in which a function wants to tell how far it is: types of such parameters."""
    kinds = set()
    for module in found:
        for function in module.functions():
            for argument in [*function.args.args, *function.args.kwonlyargs]:
                if argument.arg in ("progress", "step", "report", "on_step", "notify", "tell"):
                    kind = ast.unparse(argument.annotation) if argument.annotation else ""
                    kind = kind.removesuffix(" | None")
                    if "Callable" in kind or "rogress" in kind or "Step" in kind:
                        kinds.add(kind)
    return sorted(kinds)


def named_functions(found: Iterable[Module], *names: str) -> list[str]:
    """Functions of these names, private or not."""
    return [
        f"{module.name}.{function.name}"
        for module in found
        for function in module.functions()
        if function.name.lstrip("_") in names
    ]


def classes_with(found: Iterable[Module], *fields: str, word: str = "") -> list[str]:
    """Classes that declare all of these fields and have a word in their name."""
    return [
        f"{module.name}.{kind.name}"
        for module in found
        for kind in module.classes()
        if set(fields) <= _fields(kind) and word in kind.name
    ]


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(module: Module, known: Iterable[str], inside: bool) -> set[str]:
    """Modules of the package that a module imports; with ``inside`` those in functions too."""
    known = set(known)
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if _for_types_only(child) or (isinstance(child, _FUNCTIONS) and not inside):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    found.add(whole if whole in known else child.module)
            visit(child)

    visit(module.tree)
    return (found & known) - {module.name}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, the largest first."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in graph[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in graph
        if name in reach[name]
    }
    return sorted((sorted(group) for group in groups), key=len, reverse=True)


def private_uses(found: Iterable[Module]) -> list[str]:
    """Names with an underscore that a module takes from another one of the package.

    Imported ones, and attributes of objects that only another module of the package defines.
    """
    found = list(found)
    owners: dict[str, set[str]] = defaultdict(set)
    for module in found:
        for name in _private_members(module):
            owners[name].add(module.name)
    uses = []
    for module in found:
        foreign = {"self", "cls", *_outside(module)} - {PACKAGE}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                uses += [
                    f"{module.name}: {node.module}.{alias.name}"
                    for alias in node.names
                    if _is_private(alias.name)
                ]
            elif isinstance(node, ast.Attribute) and _is_private(node.attr):
                own = ast.unparse(node.value).split(".")[0] in foreign
                there = owners.get(node.attr, {module.name})
                if not own and module.name not in there:
                    uses.append(f"{module.name}: {ast.unparse(node)}")
    return uses


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _private_members(module: Module) -> Iterator[str]:
    """Private attributes and methods that the classes of a module have, and private functions."""
    for node in ast.walk(module.tree):
        if isinstance(node, _FUNCTIONS) and _is_private(node.name):
            yield node.name
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and _is_private(node.attr)
        ):
            yield node.attr


def duplicates(tree: Path) -> int:
    """Pairs of pieces of 60 tokens or more that are alike, by jscpd.

    Raises:
        UsageError: if jscpd cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = str((tree / PACKAGE).resolve())
        command = [*_JSCPD, "--reporters", "json", "--output", folder, "--pattern", "**/*.py"]
        try:
            subprocess.run([*command, source], check=True, capture_output=True)
            text = (Path(folder) / "jscpd-report.json").read_text(encoding="utf-8")
        except (OSError, subprocess.CalledProcessError) as error:
            raise UsageError(f"jscpd cannot be run: {error}; install Node.js with npx") from error
        return len(json.loads(text)["duplicates"])


def figures(tree: Path, pairs: bool) -> dict[str, str]:
    """All figures of a tree, by their names."""
    known = modules(tree)
    found = list(known.values())
    functions = [(module, function) for module in found for function in module.functions()]
    blocks = [
        block for module in found for block in cc_visit(module.text) if block.letter in ("F", "M")
    ]
    worst = max(blocks, key=lambda block: block.complexity)
    graph = {name: imports(module, known, inside=True) for name, module in known.items()}
    at_load = {name: imports(module, known, inside=False) for name, module in known.items()}
    rings, loops = cycles(graph), cycles(at_load)
    result = {
        "files": f"{len(found)}",
        "lines": f"{sum(module.lines for module in found)}",
        "files above 400 lines": _counted(m.name for m in found if m.lines > 400),
        f"functions above {LONG} lines": f"{sum(length(f) > LONG for _, f in functions)}",
        "functions above 80 lines": _counted(
            f"{m.name}.{f.name}" for m, f in functions if length(f) > 80
        ),
        "mean complexity": f"{mean(block.complexity for block in blocks):.2f}",
        "functions of complexity above 15": f"{sum(block.complexity > 15 for block in blocks)}",
        "worst complexity": f"{worst.complexity} (`{worst.fullname}`)",
        "array aliases": f"{len(array_aliases(found))}",
        "modules that rename a finished file into place": f"{len(atomic_writers(found))}",
        "modules that lock files": _counted(locks(found)),
        "types of progress parameters": f"{len(progress_protocols(found))}",
        "definitions of `one_line`": f"{len(named_functions(found, 'one_line'))}",
        "ranges of scales": _counted(classes_with(found, "min", "max", word="Scale")),
        "descriptions of a tensor": _counted(classes_with(found, "name", "shape", "dtype")),
        "modules in import cycles at load": f"{sum(map(len, loops))}",
        "modules in import cycles, imports in functions counted": f"{sum(map(len, rings))}",
        "private names used across modules": f"{len(private_uses(found))}",
        "most parameters of a command": _largest(pair for pair in functions if _is_command(pair)),
        "most parameters of another function": _largest(
            pair for pair in functions if not _is_command(pair)
        ),
    }
    if pairs:
        result["pairs of alike pieces (60 tokens)"] = f"{duplicates(tree)}"
    return result


def _is_command(pair: tuple[Module, Function]) -> bool:
    return pair[0].room == "cli"


def _largest(pairs: Iterable[tuple[Module, Function]]) -> str:
    """The three functions with the most parameters."""
    order = sorted(pairs, key=lambda pair: parameters(pair[1]), reverse=True)[:3]
    return ", ".join(
        f"{parameters(function)} (`{module.name.removeprefix(PACKAGE + '.')}.{function.name}`)"
        for module, function in order
    )


def _counted(names: Iterable[str]) -> str:
    listed = [name.removeprefix(PACKAGE + ".") for name in names]
    shown = f" ({', '.join(f'`{name}`' for name in listed)})" if 0 < len(listed) <= 5 else ""
    return f"{len(listed)}{shown}"


def rooms(tree: Path) -> dict[str, tuple[int, int]]:
    """Files and lines of every room."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for module in modules(tree).values():
        counts[module.room][0] += 1
        counts[module.room][1] += module.lines
    return {room: (files, lines) for room, (files, lines) in sorted(counts.items())}


def table(trees: list[Path], pairs: bool) -> str:
    """The figures, then the rooms, as Markdown with one column per tree."""
    columns = [figures(tree, pairs) for tree in trees]
    heads = ["before", "after"] if len(trees) == 2 else [tree.name for tree in trees]
    lines = [f"| figure | {' | '.join(heads)} |", f"|---{'|---' * len(trees)}|"]
    lines += [
        f"| {name} | {' | '.join(column.get(name, '') for column in columns)} |"
        for name in columns[-1]
    ]
    counted = [rooms(tree) for tree in trees]
    lines += ["", f"| room | {' | '.join(f'{head}: files, lines' for head in heads)} |"]
    lines.append(f"|---{'|---' * len(trees)}|")
    for room in sorted(set().union(*counted)):
        cells = [", ".join(map(str, count[room])) if room in count else "" for count in counted]
        lines.append(f"| `{room}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description=__doc__)
    parser.add_argument("trees", nargs="+", type=Path, help="roots of checkouts")
    parser.add_argument("--duplicates", action="store_true", help="count alike pieces with jscpd")
    options = parser.parse_args()
    print(table(options.trees, options.duplicates))


if __name__ == "__main__":
    main()
