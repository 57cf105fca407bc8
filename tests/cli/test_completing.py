"""What a shell is offered for half-typed words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scaleport
from scaleport.cli.completing import complete_backend, complete_format, complete_model
from scaleport.cli.main import VERBS
from scaleport.export_cache import keep
from scaleport.shipped import shipped_weights

GOLDEN = Path(scaleport.__file__).parent / "golden/tile.bundle"


def offered(line: str) -> list[str]:
    """What bash gets for the last word of a line."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_SCALEPORT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-m", "scaleport"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scaleport upsc", ["upscale"]),
        ("scaleport s", ["sign", "serve", "serve-config"]),
        ("scaleport upscale photo.png --longe", ["--longest"]),
        ("scaleport export scaleport-", [n for n in shipped_weights() if n.startswith("scale")]),
        ("scaleport export scaleport-s --format onnx,op", ["onnx,openvino"]),
        ("scaleport upscale photo.png --precision fp", ["fp32", "fp16"]),
        ("scaleport upscale photo.png --backend o", ["onnxruntime", "openvino"]),
        ("scaleport upscale ph", []),  # which is for the shell: files
    ],
)
def test_bash_is_offered(line, words):
    assert offered(line) == words


def test_every_verb_is_offered():
    assert offered("scaleport ") == list(VERBS)


def test_models_of_the_cache_are_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALEPORT_CACHE", str(tmp_path))
    keep("a" * 64, GOLDEN, "mine")
    assert complete_model("mi") == ["mine"]
    assert complete_backend("au") == ["auto"]
    assert complete_format("onnx,coreml,t") == ["onnx,coreml,tensorrt"]


def test_bash_itself_completes(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    (tmp_path / "scaleport").write_text(f'#!/bin/sh\nexec {sys.executable} -m scaleport "$@"\n')
    (tmp_path / "scaleport").chmod(0o755)
    script = """
        eval "$(_SCALEPORT_COMPLETE=source_bash scaleport)"
        COMP_WORDS=(scaleport exp) COMP_CWORD=1
        _scaleport_completion scaleport
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run([bash, "-c", script], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == "export", ran.stderr
