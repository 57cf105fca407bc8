"""Outputs kept on one machine and judged on another: the pairs match, or are refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from scaleport.bundle.integrity import sha256_file
from scaleport.cli.main import main
from scaleport.errors import ArtifactError, OutputError, UsageError
from scaleport.runtimes.onnxruntime import OnnxRuntimeSession
from scaleport.validation.exchange.format import read_index
from scaleport.validation.exchange.judging import judge_outputs
from scaleport.validation.exchange.saving import save_outputs
from scaleport.validation.parity.gates import passed
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate
from scaleport.validation.report.summary import failures

QUICK = ValidationOptions(["onnxruntime"], ["fp32"], "quick")


@pytest.fixture(scope="module")
def kept(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "outputs"
    save_outputs(tiny_bundle("liif"), folder, QUICK)
    return folder


@pytest.fixture
def own(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "own")
    return tmp_path / "own"


def edited(folder, change):
    path = folder / "outputs.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    return folder


def test_judged_as_if_they_had_been_run_here(tiny_bundle, kept):
    here = validate(tiny_bundle("liif"), QUICK)
    there = judge_outputs(tiny_bundle("liif"), kept)
    assert passed(there)
    assert there.results == here.results
    assert "saved outputs" in there.device["onnxruntime"]


def test_the_folder_is_open_to_whom_the_umask_says(kept):
    plain = kept.parent / "plain"
    plain.mkdir()
    assert kept.stat().st_mode == plain.stat().st_mode
    files = [path for path in kept.rglob("*") if path.is_file()]
    (plain / "file").touch()
    assert {path.stat().st_mode for path in files} == {(plain / "file").stat().st_mode}


NO_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "safetensors", "coremltools"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from scaleport.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_machine_that_keeps_them_needs_no_torch(tiny_bundle, tmp_path):
    bundle, folder = str(tiny_bundle("liif")), str(tmp_path / "made")
    asked = ["validate", bundle, "--quick", "--precision", "fp32", "--save-outputs", folder]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *asked, "--backend", "onnxruntime"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert passed(judge_outputs(bundle, tmp_path / "made"))


def test_nothing_is_pickled(own):
    for path in own.glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype == np.float32
    assert {p.suffix for p in own.iterdir()} == {".npy", ".json"}


def test_a_wrong_output_is_a_failed_case(tiny_bundle, own):
    name = read_index(own).runs[0].cases[3].file
    np.save(own / name, np.load(own / name) + np.float32(1e-3))
    digest = sha256_file(own / name).sha256
    edited(own, lambda i: i["runs"][0]["cases"][3].update(output_sha256=digest))
    (failed,) = failures(judge_outputs(tiny_bundle("liif"), own))
    assert "max abs 1.0" in failed.note


def test_a_case_that_failed_there_is_failed_here(tiny_bundle, tmp_path, monkeypatch):
    def broken(self, feeds, keep=()):
        raise RuntimeError("the device fell off")

    monkeypatch.setattr(OnnxRuntimeSession, "run", broken)
    save_outputs(tiny_bundle("liif"), tmp_path / "made", QUICK)
    monkeypatch.undo()
    found = judge_outputs(tiny_bundle("liif"), tmp_path / "made")
    assert not passed(found)
    assert any("the device fell off" in r.note for r in failures(found))


def pickled(folder):
    name = read_index(folder).runs[0].cases[0].file
    np.save(folder / name, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    digest = sha256_file(folder / name).sha256
    edited(folder, lambda i: i["runs"][0]["cases"][0].update(output_sha256=digest))


def other_graph(index):
    graphs = index["runs"][0]["graphs"]
    graphs[next(iter(graphs))] = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: edited(f, lambda i: i.update(checkpoint_sha256="0" * 64)), "checkpoint 0000"),
        (lambda f: edited(f, other_graph), "ran another onnx/fp32/encode.onnx than"),
        (
            lambda f: edited(f, lambda i: i["runs"][0]["cases"][0].update(input_sha256="0" * 64)),
            "the input of onnxruntime fp32 staged .* is not the one",
        ),
        (
            lambda f: edited(f, lambda i: i["runs"][0]["cases"].pop(2)),
            "has not the cases of the grid: staged",
        ),
        (lambda f: (f / "000000.npy").write_bytes(b"x"), "does not match its hash"),
        (lambda f: (f / "000000.npy").write_bytes(b"x" * 10_000_000), "of a fitting size"),
        (lambda f: (f / "000000.npy").unlink(), "cannot be read"),
        (pickled, "cannot be read"),
        (lambda f: edited(f, lambda i: i.update(format=9)), "of format 9"),
        (lambda f: edited(f, lambda i: i.update(attic=1)), "is damaged"),
        (
            lambda f: edited(f, lambda i: i["runs"][0]["cases"][0].update(file="../x.npy")),
            "is damaged",
        ),
        (lambda f: (f / "outputs.json").write_bytes(b"["), "is damaged"),
    ],
)
def test_wrong_pairs_are_refused_by_name(tiny_bundle, own, change, words):
    change(own)
    with pytest.raises(ArtifactError, match=words):
        judge_outputs(tiny_bundle("liif"), own)


def test_outputs_of_another_model(tiny_bundle, kept):
    with pytest.raises(ArtifactError, match=r"holds outputs of .*liif.* is .*igconv"):
        judge_outputs(tiny_bundle("igconv"), kept)


def test_folders(tiny_bundle, kept, tmp_path):
    with pytest.raises(OutputError, match="is not empty"):
        save_outputs(tiny_bundle("liif"), kept, QUICK)
    with pytest.raises(UsageError, match="holds no saved outputs"):
        judge_outputs(tiny_bundle("liif"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        save_outputs(tiny_bundle("liif"), tmp_path / "file", QUICK)


def test_command_line(tiny_bundle, kept, tmp_path, capsys):
    shutil.copytree(tiny_bundle("liif"), tmp_path / "own.bundle")
    own = str(tmp_path / "own.bundle")
    assert main(["validate", own, "--load-outputs", str(kept), "--no-store", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    line = ["validate", own, "--load-outputs", str(kept), "--gate-fp32-psnr", "900"]
    assert main(line) == 1
    assert main([*line, "--quick"]) == 2
    assert "combine it with gates only" in capsys.readouterr().err
    assert main(["validate", own, "--save-outputs", str(kept), "--rejudge"]) == 2
