"""Code blocks that are not commands: each is run, or a test or a reason is named for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
import yaml
from documents import BLOCKS, BUNDLE, PHOTO, ROOT, SHELL, Block

import scaleport
from scaleport.imaging.files import Image, load_image, save_image

ELSEWHERE = {
    "CONTRIBUTING.md": "tests/runtimes/test_contributing.py",
    "docs/extending.md": "tests/test_extending.py",
    "docs/parity.md": "tests/testing/test_parity_page.py",
}
"""Pages whose blocks a test of their own runs."""

CHECKED_BELOW = {"python", "cpp", "csharp", "kotlin", "swift", "yaml", "js"}
PYTHON = [
    block
    for block in BLOCKS
    if block.language == "python"
    and not block.not_run
    and block.page.relative_to(ROOT).as_posix() not in ELSEWHERE
]
SLOW_PAGES = {"export.md": "slow", "first-decoder.md": "slow", "precision.md": "long"}


def of_language(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_run_or_says_why_not(block: Block) -> None:
    if block.language == "text":
        first = block.text.split(maxsplit=1)[0]
        assert first not in {"scaleport", "pip", "make", "python"}, "commands are marked as bash"
        return
    page = block.page.relative_to(ROOT).as_posix()
    if page in ELSEWHERE and block.language != SHELL:
        assert block.page.name in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
        return
    assert block.not_run or block.language in {SHELL, *CHECKED_BELOW}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.not_run], ids=str)
def test_a_reason_that_names_a_test_names_one_that_is_there(block: Block) -> None:
    for named in re.findall(r"tests/[\w/]+\.py", block.not_run):
        assert (ROOT / named).is_file()


def _pages_with_python() -> list[Any]:
    pages = dict.fromkeys(block.page for block in PYTHON)
    marks = {name: getattr(pytest.mark, mark) for name, mark in SLOW_PAGES.items()}
    return [
        pytest.param(page, id=page.name, marks=[marks[page.name]] if page.name in marks else [])
        for page in pages
    ]


@pytest.mark.parametrize("page", _pages_with_python())
def test_python_of_a_page_runs_from_top_to_bottom(folder: Path, page: Path) -> None:
    """The blocks of a page share their names, as a reader who types them one after the other."""
    shutil.copy(Path(BUNDLE) / "model.safetensors", "my.safetensors")
    Path("PHOTOS").mkdir()
    for number in range(3):
        save_image(Path(f"PHOTOS/{number}.png"), Image(PHOTO))
    names: dict[str, Any] = {"image": load_image("photo.jpg").pixels}
    for block in PYTHON:
        if block.page == page:
            exec(compile(block.text, str(block), "exec"), names)
    EFFECTS.get(page.name, lambda names: None)(names)


def _readme(names: dict[str, Any]) -> None:
    assert names["hr"].shape == (173, 140, 3)
    assert names["wide"].shape == (128, 182, 3)
    assert names["part"].shape == (256, 256, 3)
    expected = scaleport.load(BUNDLE)(names["image"], 5.3)[:256, :256].astype(int)
    assert np.abs(names["part"] - expected).max() <= 1


def _zoom(names: dict[str, Any]) -> None:
    assert (names["rows"], names["cols"]) == (160, 130)
    np.testing.assert_array_equal(names["first"], names["view"].render(2.5)[:96, :128])
    np.testing.assert_array_equal(names["closer"], names["view"].render(4.2)[60:156, 40:168])
    assert 0 < names["kept"] <= 256 << 20


def _upscale(names: dict[str, Any]) -> None:
    assert names["large"].shape == (173, 140, 3)
    assert names["wide"].shape == (128, 182, 3)
    assert load_image("photo_large.png").pixels.shape == (173, 140, 3)
    assert names["report"].made == 1


def _whole_graph(names: dict[str, Any]) -> None:
    image = np.random.default_rng(1).random((1, 3, 9, 11), np.float32)
    expected = scaleport.load(BUNDLE)(image, (2.7, 3.5))
    np.testing.assert_allclose(names["upscale"](image, 2.7, 3.5), expected, atol=1e-5)


def _first_decoder(names: dict[str, Any]) -> None:
    losses, parity, bundle = names["losses"], names["parity"], names["bundle"]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
    assert {"onnx", "openvino", "coreml"} <= set(bundle.formats())
    assert "tensorrt" in {*bundle.formats(), *bundle.manifest.skipped}
    compared = {result.backend for result in parity.results if result.max_abs is not None}
    assert {"torch", "onnxruntime", "openvino", "coreml"} <= compared
    assert names["large"].shape == (108, 162, 3)


EFFECTS = {
    "first-decoder.md": _first_decoder,
    "README.md": _readme,
    "zoom.md": _zoom,
    "upscale.md": _upscale,
    "app.md": _whole_graph,
}


def test_recipes_of_the_page_on_training_are_recipes(tmp_path: Path) -> None:
    from scaleport.training.recipe import Degradations, load_recipe

    recipe, degradations = (b for b in of_language("yaml") if b.page.name == "training.md")
    (tmp_path / "own.yaml").write_text(recipe.text)
    assert load_recipe(tmp_path / "own.yaml").optimiser.lr == 1e-4
    told = yaml.safe_load(degradations.text)["degradations"]
    assert msgspec.convert(told, Degradations).compression.quality == (30, 95)


def test_javascript_names_what_the_package_exports() -> None:
    (block,) = of_language("js")
    names = re.search(r"import \{ (.+?) \} from", block.text)
    exported = (ROOT / "web/src/index.ts").read_text(encoding="utf-8")
    assert names
    assert all(re.search(rf"\b{name}\b", exported) for name in names[1].split(", "))
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "web/src").rglob("*.ts"))
    for method in ("open", "render", "parts", "provider", "close"):
        assert f".{method}(" in block.text
        assert re.search(rf"^  (?:async \*?|\*)?{method}\(", source, re.MULTILINE), method


@pytest.mark.parametrize("block", of_language("csharp", "kotlin", "swift"), ids=str)
def test_snippet_is_of_the_grammar_of_its_language(block: Block) -> None:
    tree_sitter = pytest.importorskip("tree_sitter")
    module = {"csharp": "c_sharp"}.get(block.language, block.language)
    grammar = pytest.importorskip(f"tree_sitter_{module}")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    assert not parser.parse(block.text.encode()).root_node.has_error
    assert parser.parse(block.text.replace("return", "return (", 1).encode()).root_node.has_error


MAIN = """
#include "whole_graph.hpp"
#include <cstdio>
#include <cstdlib>

int main(int, char** words) {
    Ort::Env env;
    Ort::Session session(env, words[1], Ort::SessionOptions());
    Planes image{std::vector<float>(3 * 9 * 11), 9, 11};
    if (fread(image.values.data(), 4, image.values.size(), stdin) != image.values.size()) return 1;
    Planes made = upscale(session, image, 2.7f, 3.5f);
    if (made.height != 24 || made.width != 39) return 2;
    fwrite(made.values.data(), 4, made.values.size(), stdout);
    return 0;
}
"""


def test_cpp_of_the_page_on_apps_gives_the_values_of_python(folder: Path) -> None:
    headers = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
    if not shutil.which("g++") or not (headers / "onnxruntime_cxx_api.h").is_file():
        pytest.skip("needs g++, and the headers of ONNX Runtime where ONNXRUNTIME_INCLUDE says")
    (block,) = of_language("cpp")
    Path(block.file).write_text(block.text)
    Path("main.cpp").write_text(MAIN)
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.1.*")
    Path("libonnxruntime.so.1").symlink_to(library)
    flags = ["-std=c++17", "-Wall", "-Werror", f"-isystem{headers}", "-Wl,-rpath,."]
    subprocess.run(["g++", *flags, "main.cpp", "libonnxruntime.so.1", "-o", "main"], check=True)
    graph = f"{BUNDLE}/onnx/fp32/whole.onnx"
    image = np.random.default_rng(1).random((1, 3, 9, 11), np.float32)
    made = subprocess.run(["./main", graph], input=image.tobytes(), capture_output=True, check=True)
    values = np.frombuffer(made.stdout, np.float32).reshape(1, 3, 24, 39)
    np.testing.assert_allclose(values, scaleport.load(BUNDLE)(image, (2.7, 3.5)), atol=1e-5)
