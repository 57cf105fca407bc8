"""The integer grid of the mobile samples: vectors from ``grid.py``, and programs that give them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
VECTORS = EXAMPLES / "grid_vectors.json"


def test_vectors_are_what_the_grid_gives() -> None:
    path = EXAMPLES / "make_grid_vectors.py"
    spec = importlib.util.spec_from_file_location("make_grid_vectors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert VECTORS.read_text(encoding="utf-8") == module.text()


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


def changed_vectors(folder: Path) -> Path:
    text = VECTORS.read_text(encoding="utf-8")
    target = folder / "changed.json"
    target.write_text(text.replace("[15, 1.3, 20]", "[15, 1.3, 19]"), encoding="utf-8")
    assert target.read_text(encoding="utf-8") != text
    return target


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("kotlinc") and shutil.which("java")), reason="kotlinc and java are missing"
)
def test_kotlin_gives_every_vector(tmp_path: Path) -> None:
    jar = tmp_path / "check.jar"
    sources = [EXAMPLES / "android" / name for name in ("Grid.kt", "GridCheck.kt")]
    built = run("kotlinc", *sources, "-include-runtime", "-d", jar)
    assert jar.is_file(), built.stderr
    right = run("java", "-jar", jar, VECTORS)
    assert right.returncode == 0, right.stdout
    assert "81 cases, 0 wrong" in right.stdout
    # The comparison can fail.
    assert run("java", "-jar", jar, changed_vectors(tmp_path)).returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("swiftc"), reason="swiftc is missing")
def test_swift_gives_every_vector(tmp_path: Path) -> None:
    program = tmp_path / "check"
    sources = [EXAMPLES / "ios" / name for name in ("Grid.swift", "GridCheck.swift")]
    built = run("swiftc", "-parse-as-library", *sources, "-o", program)
    assert built.returncode == 0, built.stderr
    assert run(program, VECTORS).returncode == 0
    assert run(program, changed_vectors(tmp_path)).returncode == 1
