"""``scaleport bench``: what it measures, what it writes, what it refuses."""

from __future__ import annotations

import json

import pytest

from scaleport.benchmark import contenders
from scaleport.cli.main import main

QUICK = "--size 16 --scale 2 --rounds 2 --threads 1"


def test_table_json_and_plot(folder, run) -> None:
    line = f"bench photo.bundle {QUICK} --backend onnxruntime,openvino --pytorch eager"
    ran = run(f"{line} --precision fp32 --json --plot speed.png")
    assert (ran.code, ran.err) == (0, "")
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.glob(".*")] == []
    found = json.loads(ran.out)
    assert found["surroundings"]["threads"] == 1
    assert all(rate > 0 for rate in found["ceiling"].values())
    rows = {row["contender"]: row for row in found["rows"]}
    assert list(rows) == ["pytorch eager", "onnxruntime", "openvino"]
    assert rows["pytorch eager"]["faster"]["median"] == 1
    for name, row in rows.items():
        times = row["seconds"]
        assert 0 < times["low"] <= times["median"] <= times["high"]
        assert row["megapixels"] == pytest.approx(32 * 32 / times["median"] / 1e6)
        assert row["of_ceiling"]["median"] > 0
        if name != "pytorch eager":
            assert row["peak_mib"] > row["before_mib"] > 10


def test_every_size_and_scale_has_its_table(folder, run) -> None:
    line = "bench photo.bundle --size 8,9x7 --scale 2,2.5 --rounds 1 --threads 1 --no-memory"
    ran = run(f"{line} --backend onnxruntime --precision fp32 --pytorch none")
    assert (ran.code, ran.err) == (0, "")
    shown = [text for text in ran.out.splitlines() if ", x2" in text]
    assert [text.split(", ", 1)[1] for text in shown] == [
        "8x8, x2",
        "8x8, x2.5",
        "9x7, x2",
        "9x7, x2.5",
    ]
    assert ran.out.count("onnxruntime fp32") == 4


def test_no_compiler_is_said_and_the_rest_is_measured(folder, run, monkeypatch) -> None:
    monkeypatch.setattr(contenders.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    line = f"bench photo.bundle {QUICK} --no-memory --backend onnxruntime --precision fp32"
    ran = run(f"{line} --pytorch compile")
    assert ran.code == 0
    assert "left out: pytorch compile: torch.compile needs a C++ compiler" in ran.out
    assert "onnxruntime fp32" in ran.out


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("--pytorch jit", 2, "eager or compile"),
        ("--pytorch none,eager", 2, "not both"),
        ("--scale 99", 2, "outside the range"),
        ("--size 0", 2, "a size is"),
        ("--backend nothing", 2, "unknown backend"),
        ("--plot speed.txt", 2, "a plot is written as"),
        ("--plot nowhere/speed.png", 2, "no folder"),
        (
            "--backend onnxruntime --precision int8 --pytorch none",
            2,
            "has no graphs of the backends",
        ),
    ],
)
def test_wrong_requests_measure_nothing(folder, run, options: str, code: int, says: str) -> None:
    ran = run(f"bench photo.bundle {QUICK} {options}")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert says in ran.err


def test_a_bundle_that_is_not_there(folder) -> None:
    assert main(["bench", "other.bundle"]) == 2
