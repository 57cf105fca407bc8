"""Verbs that read a bundle: inspect, doctor, validate."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

QUICK = "validate photo.bundle --quick --backend onnxruntime --precision fp32"


def bytes_of(path: Path) -> dict[str, str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_inspect_shows_what_the_manifest_says(run, folder) -> None:
    ran = run("inspect photo.bundle --json --verify")
    assert (ran.code, ran.err) == (0, "")
    manifest = json.loads((folder / "photo.bundle/manifest.json").read_text())
    for key in ("name", "family", "model", "parameters", "receptive_field", "scale", "skipped"):
        assert ran.json[key] == manifest[key]
    assert [(g["format"], g["precision"]) for g in ran.json["graphs"]] == [
        ("onnx", "fp32"),
        ("onnx", "fp16"),
        ("openvino", "fp32"),
        ("openvino", "fp16"),
    ]
    assert ran.json["bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())
    assert (ran.json["verified"], ran.json["parity"]) == (True, None)


def test_inspect_in_words(run, folder) -> None:
    ran = run("inspect photo.bundle")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("photo.bundle: tiny-liif, ")
    assert "x1 to x8 per axis, any real number" in ran.out
    assert "run scaleport validate photo.bundle" in ran.out


def test_inspect_folds_long_lines_at_the_terminal(run, folder, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = run("inspect photo.bundle").out.splitlines()
    assert max(map(len, lines)) <= 70
    monkeypatch.delenv("COLUMNS")
    assert any(len(line) > 120 for line in run("inspect photo.bundle").out.splitlines())


def test_inspect_lays_out_what_a_checkpoint_says_of_itself(run) -> None:
    shown = run("inspect igconv-small").out
    assert re.search(r"^  license +Apache-2\.0$", shown, re.M)
    assert "{" not in shown
    assert re.search(r"^  recipe\n    batch +8$", shown, re.MULTILINE)
    assert re.search(r"^    33\.68 +Set5 +37\.15 +2\.0$", shown, re.MULTILINE)


def test_inspect_of_a_checkpoint(run, tiny_checkpoint) -> None:
    ran = run(f"inspect {tiny_checkpoint('igconv')} --json")
    assert (ran.code, ran.json["kind"], ran.json["family"]) == (0, "checkpoint", "lattice")
    assert ran.json["native_scales"] == [2, 3, 4]


def test_inspect_lists_the_networks_that_can_be_built(run) -> None:
    found = run("inspect --models --json").json
    from scaleport.models import ENCODERS, UPSAMPLERS

    assert set(found["encoders"]) == set(ENCODERS) >= {"edsr", "eqsr", "hit-srf"}
    assert set(found["upsamplers"]) == set(UPSAMPLERS) >= {"igconv", "liif", "spconv"}


def test_doctor_knows_a_wrong_path_before_it_tries_anything(run, folder) -> None:
    ran = run("doctor gone.bundle")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: there is no bundle at gone.bundle\n"


def test_doctor_counts_operations_by_precision_and_by_graph_with_v(run, folder) -> None:
    line = "doctor photo.bundle --backend onnxruntime"
    short = run(line).out.split("operations of")[1].splitlines()
    assert [row.split()[:4] for row in short[1:]] == [
        ["onnxruntime", "fp32,", "2", "graphs"],
        ["onnxruntime", "fp16,", "2", "graphs"],
    ]
    full = run(f"{line} -v").out.split("operations of")[1]
    assert [stage in full for stage in ("fp32 encode", "fp16 render")] == [True, True]


@pytest.mark.parametrize("line", ["inspect photo.bundle --verify -q", "doctor photo.bundle -q"])
def test_quiet_reading_prints_nothing(run, folder, line: str) -> None:
    assert run(line) == (0, "", "")


def test_doctor_says_of_every_backend_whether_it_runs(run) -> None:
    from scaleport.runtimes.registry import backend_names

    ran = run("doctor --json")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(ran.json["backends"]) == backend_names()
    for state in ran.json["backends"].values():
        assert state["device"] if state["usable"] else state["reason"]


def test_doctor_runs_every_graph_of_a_bundle(run, folder) -> None:
    ran = run("doctor photo.bundle --json")
    assert (ran.code, ran.err) == (0, "")
    done = {(c["check"], c["backend"], c["precision"]) for c in ran.json["checks"] if c["ok"]}
    assert done >= {("hashes", "", ""), ("run", "onnxruntime", "fp32"), ("run", "openvino", "fp16")}
    assert len(done) == len(ran.json["checks"])


def test_doctor_in_words(run, folder) -> None:
    ran = run("doctor photo.bundle --backend onnxruntime")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["onnxruntime", "fp16", "ok", "4"] in [row[:4] for row in rows]


def test_inspect_and_doctor_change_nothing(run, folder) -> None:
    before = bytes_of(folder)
    for line in ("inspect photo.bundle --verify", "doctor photo.bundle"):
        assert run(f"{line} -q").code == 0
    assert bytes_of(folder) == before


def test_validate_stores_results_that_inspect_shows_and_rejudge_judges(run, folder) -> None:
    ran = run(f"{QUICK} --json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["passed"], ran.json["failed"]) == (True, 0)
    assert {case["backend"] for case in ran.json["summary"]} == {"onnxruntime"}

    (shown,) = run("inspect photo.bundle --json").json["parity"]
    assert shown["cases"] == shown["passed"] == ran.json["cases"] > 0

    again = run("validate photo.bundle --rejudge --gate-fp32-psnr 300 --no-store --json")
    assert (again.code, again.json["passed"]) == (1, False)
    assert again.err.startswith("error: ")
    assert again.err.count("\n") == 1
    assert run("validate photo.bundle --rejudge -q") == (0, "", "")


def test_validate_in_words_changes_nothing_without_store(run, folder) -> None:
    before = bytes_of(folder)
    ran = run(f"{QUICK} --no-store")
    assert (ran.code, ran.err) == (0, "")
    assert "cases within the gates" in ran.out
    assert all(len(line) <= 120 for line in ran.out.splitlines())
    assert bytes_of(folder) == before
