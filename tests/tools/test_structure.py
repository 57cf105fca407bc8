"""The figures of a tree that is small enough to count by hand, and a walk through ours."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from scaleport.errors import UsageError
from tools.structure import (
    array_aliases,
    atomic_writers,
    cycles,
    figures,
    imports,
    length,
    modules,
    parameters,
    private_uses,
    progress_protocols,
    rooms,
)

ROOT = Path(__file__).parents[2]

FILES = {
    "__init__.py": "",
    "top.py": "from scaleport.low.one import _hidden, shown\n",
    "low/__init__.py": "",
    "low/one.py": (
        "import os\nimport numpy.typing as npt\nfrom typing import Any\n"
        "Array = npt.NDArray[Any]\n\n"
        "def _hidden(a, b, *, c=1):\n    os.replace(a, b)\n    return c\n\n"
        "def shown(progress: Progress | None = None):\n"
        "    from scaleport.low.two import Kept\n    return Kept\n"
    ),
    "low/two.py": (
        "from typing import TYPE_CHECKING\nfrom scaleport.low import one\n"
        "if TYPE_CHECKING:\n    from scaleport import top\n\n"
        "class Kept:\n    def __init__(self):\n        self._own = one.shown\n\n"
        "def text(value):\n    return value.replace('a', 'b')\n"
    ),
    "low/three.py": "from scaleport.low.two import Kept\n\ndef look():\n    return Kept()._own\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "scaleport" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_rooms_and_modules(tree: Path) -> None:
    assert rooms(tree) == {"(modules)": (2, 1), "low": (4, 27)}
    with pytest.raises(UsageError, match="root of a checkout"):
        modules(tree / "scaleport")


def test_cycles_with_and_without_imports_in_functions(tree: Path) -> None:
    known = modules(tree)
    at_load = {name: imports(module, known, inside=False) for name, module in known.items()}
    assert at_load["scaleport.low.two"] == {"scaleport.low.one"}
    assert cycles(at_load) == []
    everywhere = {name: imports(module, known, inside=True) for name, module in known.items()}
    assert cycles(everywhere) == [["scaleport.low.one", "scaleport.low.two"]]


def test_names(tree: Path) -> None:
    known = modules(tree)
    found = list(known.values())
    assert private_uses(found) == [
        "scaleport.low.three: Kept()._own",
        "scaleport.top: scaleport.low.one._hidden",
    ]
    assert array_aliases(found) == ["scaleport.low.one.Array"]
    assert atomic_writers(found) == ["scaleport.low.one"]
    assert progress_protocols(found) == ["Progress"]
    hidden, shown = known["scaleport.low.one"].functions()
    assert (parameters(hidden), parameters(shown)) == (3, 1)
    assert (length(hidden), length(shown)) == (3, 3)


def test_figures(tree: Path) -> None:
    found = figures(tree, pairs=False)
    assert found["files"] == "6"
    assert found["functions above 60 lines"] == "0"
    assert found["mean complexity"] == "1.00"
    assert found["modules in import cycles, imports in functions counted"] == "2"


def test_a_walk_names_modules_in_the_order_of_their_calls() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tools.walk", "models", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert made.returncode == 0, made.stderr
    lines = [line.split() for line in made.stdout.splitlines() if line.startswith("scaleport.")]
    walked = [words[0] for words in lines]
    assert walked[0] == "scaleport.cli.main"
    assert len(set(walked)) == len(walked) > 3
    for number, words in enumerate(lines[1:], 1):
        assert words[1] in walked[:number], words


def test_the_page_on_upgrading_names_modules_that_are_there() -> None:
    text = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^ *\| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    now = re.findall(r"`(scaleport(?:\.[a-z_]+)+)`", " ".join(row[1] for row in rows))
    assert len(now) >= 6
    for name in now:
        assert find_spec(name) is not None, name
