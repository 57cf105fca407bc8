"""Every hostile file of ``attacks/`` through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaleport.imaging.files import Image, save_image

HERE = Path(__file__).resolve().parents[2] / "attacks"
TABLE: list[dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
ROWS = {row["name"]: row for row in TABLE}
MOST_SECONDS = 30
MOST_MIB = 2048

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes pipes and limits memory")


@pytest.fixture(scope="module")
def outcome(tiny_bundle, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What the command line answered, by the name of the attack; "" is the whole run."""
    for package in ("onnx", "onnxruntime", "openvino", "coremltools", "cryptography"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("attacks")
    save_image(folder / "photo.png", Image(np.zeros((9, 9, 3), np.uint8)))
    command = [sys.executable, str(HERE / "run.py"), str(tiny_bundle("liif")), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert ran.returncode == 0, (ran.stdout[-500:], ran.stderr[-2000:])
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert not ran.stderr, "libraries print past the command's own streams"
    return {row.get("name", ""): row for row in found}


def test_every_maker_is_in_the_table_and_the_table_is_long_enough(outcome) -> None:
    assert len(ROWS) == len(TABLE) == outcome[""]["attacks"]
    assert len(TABLE) >= 40
    assert all(row["says"] and row["exit"] in (2, 3, 4) for row in TABLE)


@pytest.mark.parametrize("name", ROWS)
def test_attack_is_refused(outcome, name: str) -> None:
    expected, got = ROWS[name], outcome[name]
    assert got["exit"] == expected["exit"], got
    assert got["err"].startswith("error: "), got
    assert got["err"].count("\n") == 1, got
    assert got["err"].endswith("\n"), got
    assert expected["says"] in got["err"]
    assert "Traceback" not in got["err"]
    assert "internal error" not in got["err"]
    assert got["err"][:-1].isprintable(), got
    assert len(got["err"]) < 2000
    assert got["out"] == ""
    assert got["made"] == [], "the command, or code of the file, wrote something"
    assert got["seconds"] < MOST_SECONDS


def test_memory_stays_bounded(outcome) -> None:
    assert outcome[""]["peak_mib"] < MOST_MIB
