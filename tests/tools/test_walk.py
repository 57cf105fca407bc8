"""The walks of docs/architecture.md: commands pass the listed modules, downwards only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_rooms import UPWARDS, level, room

from scaleport.imaging.files import Image, save_image

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def listed(walk: str) -> tuple[int, dict[str, str]]:
    """How many modules the page says that a walk passes, and those by their names."""
    text = PAGE.read_text(encoding="utf-8")
    start = rf"^{walk}, now \(([0-9]+) modules\).*?\n\n"
    head, lines = re.search(start + r"((?:    [^\n]*\n)+)", text, re.M | re.S).groups()
    found = {}
    # A long list goes on in the next line.
    for line in re.sub(r"\n {8,}", " ", lines).splitlines():
        place, names = re.fullmatch(r" {4}([a-z_.]+|\(modules\)) +([a-z_, ]+)", line).groups()
        for name in names.split(", "):
            found[name if place == "(modules)" else f"{place}.{name}"] = place
    return int(head), found


def walked(*command: str, cache: Path) -> dict[str, str]:
    """Modules that a command passes, each with the module that called it first."""
    made = subprocess.run(
        [sys.executable, "-m", "tools.walk", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "SCALEPORT_CACHE": str(cache)},
    )
    assert made.returncode == 0, made.stderr
    lines = [line.split() for line in made.stdout.splitlines() if line.startswith("scaleport.")]
    return {
        words[0].removeprefix("scaleport."): "".join(words[1:]).removeprefix("scaleport.")
        for words in lines
    }


def check(found: dict[str, str], walk: str) -> None:
    count, known = listed(walk)
    assert set(found) == set(known)
    assert count == len(known)
    upwards = {
        (caller, module)
        for module, caller in found.items()
        if caller
        and room(caller) != room(module)
        and level(caller) <= level(module)
        and (caller, room(module)) not in UPWARDS
    }
    assert not upwards


def test_a_picture_passes_what_the_page_lists(tiny_bundle, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    save_image(tmp_path / "small.png", Image(pixels))
    words = ("-m", str(tiny_bundle("liif")), "-s", "2", "-o", str(tmp_path / "large.png"))
    # Named, so that the walk is the same on machines with a GPU.
    where = ("--backend", "onnxruntime", "--device", "CPUExecutionProvider")
    found = walked("upscale", str(tmp_path / "small.png"), *words, *where, cache=tmp_path / "cache")
    check(found, "A picture")


def test_a_checkpoint_passes_what_the_page_lists(tiny_checkpoint, tmp_path) -> None:
    pytest.importorskip("onnxscript")
    target = str(tmp_path / "made.bundle")
    source = str(tiny_checkpoint("liif"))
    words = ("export", source, "--format", "onnx", "--precision", "fp16", "-o", target)
    check(walked(*words, cache=tmp_path / "cache"), "A checkpoint")


def test_what_a_walk_may_not_do_is_found() -> None:
    known = listed("A picture")[1]
    good = dict.fromkeys(known, "cli.main")
    check(good, "A picture")
    with pytest.raises(AssertionError):
        check({**good, "mil.evaluator": "runtimes.coreml"}, "A picture")
    with pytest.raises(AssertionError):
        check({**good, "runtimes.view": "imaging.reading"}, "A picture")
