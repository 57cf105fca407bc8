"""The runtime needs no torch, and importing the package costs nothing."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from scaleport.cli.main import VERBS, main
from scaleport.imaging.files import Image, load_image, save_image

PACKAGE = Path(__file__).parents[1] / "scaleport"
EXPORT_ONLY = ("torch", "onnx", "onnxscript", "onnxslim", "safetensors", "coremltools")
HEAVY = (*EXPORT_ONLY, "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "PIL", "numpy")

WITHOUT_TORCH = f"""
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {EXPORT_ONLY!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Absent())
"""


def fresh(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def without_torch(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return fresh(textwrap.dedent(WITHOUT_TORCH) + textwrap.dedent(code), *args)


CLI = """
    from scaleport.cli.main import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_bundle("liif"), tmp_path / "photo.bundle")
    pixels = np.random.default_rng(6).integers(0, 256, (22, 31, 3), np.uint8)
    save_image(tmp_path / "photo.png", Image(pixels))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_upscale_without_torch_gives_the_same_picture(folder: Path, backend: str) -> None:
    line = f"upscale photo.png -m photo.bundle -s 2.7,3.3 --backend {backend} -q -o".split()
    ran = without_torch(CLI, *line, "without.png")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert main([*line, "with.png"]) == 0
    without, reference = load_image("without.png").pixels, load_image("with.png").pixels
    assert without.shape == (59, 102, 3)
    np.testing.assert_array_equal(without, reference)


def test_library_without_torch_chooses_a_backend_by_itself(folder: Path) -> None:
    code = """
        import numpy as np
        import scaleport

        up = scaleport.load("photo.bundle")
        assert up(np.zeros((9, 8, 3), np.uint8), 2.5).shape == (23, 20, 3)
        print(up.backend)
    """
    ran = without_torch(code)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip() != "torch"


@pytest.mark.parametrize("line", ["inspect photo.bundle --verify", "doctor photo.bundle"])
def test_bundles_are_inspected_and_tried_without_torch(folder: Path, line: str) -> None:
    ran = without_torch(CLI, *line.split())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "onnx" in ran.stdout


@pytest.mark.parametrize("line", ["inspect --models", "inspect eqsr --json"])
def test_networks_are_listed_without_torch(line: str) -> None:
    ran = without_torch(CLI, *line.split())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "eqsr" in ran.stdout


def test_help_of_every_verb_without_torch() -> None:
    code = """
        from scaleport.cli.main import VERBS, main

        codes = [main(["--help"]), *(main([verb, "--help"]) for verb in VERBS)]
        sys.exit(any(codes))
    """
    ran = without_torch(code)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("Usage: scaleport") == 1 + len(VERBS)


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("export tiny.safetensors", "export"),
        ("validate photo.bundle", "torch"),
        ("inspect tiny.safetensors", "torch"),
        ("import weights.pth -o new.safetensors", "torch"),
        ("eval tiny.safetensors --data . --metric lpips", "eval"),
        ("eval tiny.safetensors --data .", "torch"),
        ("train scaleport-s --data . --work run", "train"),
        ("upscale photo.png -m photo.bundle -s 2 --backend torch", "torch"),
    ],
)
def test_what_needs_torch_names_the_extra_to_install(
    folder: Path, tiny_checkpoint, line: str, extra: str
) -> None:
    shutil.copy(tiny_checkpoint("liif"), "tiny.safetensors")
    Path("weights.pth").write_text("never read")
    before = sorted(folder.iterdir())
    ran = without_torch(CLI, *line.split())
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.endswith(f"pip install 'scaleport[{extra}]'\n")
    assert ran.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_importing_the_package_is_fast_and_brings_nothing_along() -> None:
    code = f"""if True:
        import json, sys, time
        start = time.perf_counter()
        import scaleport
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, [name for name in {HEAVY!r} if name in sys.modules]]))
    """
    measured = [json.loads(fresh(code).stdout) for _ in range(5)]
    assert [brought for _, brought in measured] == [[]] * 5
    assert min(seconds for seconds, _ in measured) < 0.3


def imports(tree: ast.AST, package: str) -> set[str]:
    """Full names of everything that a module imports, wherever it does so."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            found.update(a.value for a in node.args if isinstance(a, ast.Constant))
    return found


def forbidden(names: set[str]) -> set[str]:
    rooms = {"scaleport.models", "scaleport.export", "scaleport.training"}
    return {
        name
        for name in names
        if name.split(".")[0] in EXPORT_ONLY[:1] or ".".join(name.split(".")[:2]) in rooms
    }


@pytest.mark.parametrize(
    "statement",
    [
        "import torch.nn as nn",
        "def f():\n    from torch import nn",
        "if TYPE_CHECKING:\n    from scaleport.models.base import Stage",
        "from scaleport import export",
        "from ..training import loop",
        "x = importlib.import_module('torch')",
    ],
)
def test_no_import_hides_from_the_check_below(statement: str) -> None:
    assert forbidden(imports(ast.parse(statement), "scaleport.runtimes"))


NEEDING_MORE = (
    # What runs on PyTorch, and the choice of the library that reaches a GPU, which asks for it only
    # where it is installed.
    PACKAGE / "runtimes" / "torch.py",
    PACKAGE / "runtimes" / "torch_arrays.py",
    PACKAGE / "runtimes" / "torch_precision.py",
    PACKAGE / "runtimes" / "gpu.py",
    # ExecuTorch's Python runtime takes and returns PyTorch's tensors.
    PACKAGE / "runtimes" / "executorch.py",
    # What bisect and doctor ask of TensorRT: it builds engines, as an export does.
    PACKAGE / "runtimes" / "tensorrt_inside.py",
)
RUNTIME = [
    PACKAGE / "grid.py",
    PACKAGE / "errors.py",
    PACKAGE / "catalogue.py",
    PACKAGE / "paths.py",
    PACKAGE / "plugins.py",
    *(
        path
        for room in ("batch", "bundle", "imaging", "mil", "runtimes")
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if path not in NEEDING_MORE
    ),
]


@pytest.mark.parametrize("path", RUNTIME, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_runtime_rooms_import_neither_torch_nor_the_rooms_that_need_it(path: Path) -> None:
    package = ".".join(path.relative_to(PACKAGE.parent).parts[:-1])
    assert forbidden(imports(ast.parse(path.read_text(encoding="utf-8")), package)) == set()
