"""Arithmetic that was asked for: it is judged by a gate of its own, stored, and shown."""

from __future__ import annotations

import json
import shutil

import pytest
from validation_samples import result

from scaleport.bundle import reader
from scaleport.bundle.reader import read_manifest
from scaleport.cli.main import main
from scaleport.errors import UsageError
from scaleport.runtimes.base import precision_text
from scaleport.runtimes.registry import get_backend, refusal_of
from scaleport.validation.parity.gates import Gate, Gates, judge
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import validate


@pytest.fixture
def own(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle("liif"), tmp_path / "m.bundle")
    return tmp_path / "m.bundle"


def test_gates_of_inference_precisions():
    gates = Gates(bf16=Gate(psnr=40.0), tf32=Gate(0.01, 60.0))
    assert gates.of("fp32", "") == gates.of("fp32", "fp32") == gates.fp32
    assert gates.of("fp32", "bf16") == gates.bf16
    assert gates.of("fp32", "fp16") == gates.fp16
    # An fp16 graph in a better arithmetic is still an fp16 graph.
    assert gates.of("fp16", "tf32") == gates.fp16
    assert gates.of("fp16", "bf16") == gates.bf16
    assert gates.of("fp16", "fp32") == gates.fp16
    for pair in (("int8", ""), ("bf16", ""), ("fp32", "fp8")):
        with pytest.raises(UsageError, match="no parity gate"):
            gates.of(*pair)


def test_only_gates_that_count_are_stored():
    assert set(Gates().limits()) == {"fp32", "fp16"}
    assert set(Gates().limits(["", "bf16"])) == {"fp32", "fp16", "bf16"}


def test_float32_is_not_judged_as_bf16():
    rough = {"max_abs": 0.01, "psnr": 50.0}
    assert judge(result(**rough, inference_precision="bf16"), Gates()).passed
    assert not judge(result(**rough, inference_precision="tf32"), Gates()).passed
    assert not judge(result(**rough, inference_precision="fp32"), Gates()).passed
    assert not judge(result(**rough), Gates()).passed


def test_words():
    assert precision_text("fp32") == precision_text("fp32", "fp32") == "fp32"
    assert precision_text("fp32", "bf16") == "fp32 in bf16"


def test_a_backend_says_what_it_can_compute_in():
    assert refusal_of(get_backend("coreml"), "") == ""
    assert refusal_of(get_backend("coreml"), "fp32") == ""
    said = "coreml cannot compute in bf16 here, only in fp32"
    assert refusal_of(get_backend("coreml"), "bf16") == said
    with pytest.raises(UsageError, match="unknown inference precision 'fp8'"):
        refusal_of(get_backend("coreml"), "fp8")


def test_bf16_is_compared_stored_and_shown(own, capsys):
    line = ["validate", str(own), "--quick", "--backend", "torch", "--precision", "fp32"]
    assert main([*line, "--json"]) == 0
    assert main([*line, "--inference-precision", "bf16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.split("\n}\n")[1] + "\n}")
    assert {row["precision"] for row in told["summary"]} == {"fp32 in bf16"}
    assert told["gates"]["bf16"] == {"psnr": Gates().bf16.psnr}
    stored = read_manifest(own).parity
    # Neither run took the place of the other, and bf16 really was at work.
    exact = [r.psnr for r in stored.results if not r.inference_precision and r.psnr is not None]
    lower = [r.psnr for r in stored.results if r.inference_precision == "bf16" and r.psnr]
    assert len(exact) == len(lower) > 10
    assert min(exact) > 100 > 80 > min(lower)
    assert main(["inspect", str(own)]) == 0
    assert "fp32 in bf16" in capsys.readouterr().out
    assert main(["inspect", str(own), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["parity"]
    assert {(g["precision"], g["inference_precision"]) for g in groups} == {
        ("fp32", ""),
        ("fp32", "bf16"),
    }


def test_backends_that_cannot_are_not_run(own, capsys):
    line = ["validate", str(own), "--backend", "onnxruntime", "--inference-precision", "bf16"]
    assert main(line) == 2
    assert "onnxruntime cannot compute in bf16 here" in capsys.readouterr().err
    assert main(["bench", str(own), *line[2:], "--size", "9", "--scale", "2"]) == 3
    assert "onnxruntime cannot compute in bf16 here" in capsys.readouterr().err


def test_bench_measures_what_was_asked_for(own, capsys):
    line = ["bench", str(own), "--backend", "torch", "--precision", "fp32", "--size", "9"]
    line += ["--scale", "2", "--rounds", "1", "--pytorch", "none", "--no-memory", "--threads", "1"]
    assert main([*line, "--inference-precision", "bf16", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["precision"], row["inference_precision"]) == ("fp32", "bf16")


def test_outputs_that_were_kept_are_judged_as_they_were_made(own, tmp_path, capsys):
    line = ["validate", str(own), "--quick", "--backend", "torch", "--precision", "fp32"]
    kept = str(tmp_path / "kept")
    assert main([*line, "--inference-precision", "bf16", "--save-outputs", kept]) == 0
    assert "fp32 in bf16" in capsys.readouterr().out
    assert main(["validate", str(own), "--load-outputs", kept]) == 0
    assert {r.inference_precision for r in read_manifest(own).parity.results} == {"bf16"}
    assert main(["validate", str(own), "--load-outputs", kept, "--gate-bf16-psnr", "99"]) == 1


def test_one_validation_reads_the_manifest_once(own, tmp_path, monkeypatch, capsys):
    count = 0
    real = reader._parse

    def counted(path, data):
        nonlocal count
        count += 1
        return real(path, data)

    monkeypatch.setattr(reader, "_parse", counted)
    page = tmp_path / "page.html"
    line = ["validate", str(own), "--quick", "--backend", "onnxruntime,torch", "--report"]
    assert main([*line, str(page)]) == 0
    assert page.is_file()
    assert count == 1
    opened = reader.open_bundle(own)
    assert opened.manifest.parity is not None
    count = 0
    validate(opened, ValidationOptions(["onnxruntime"], ["fp32"], "quick"))
    assert count == 0
    capsys.readouterr()


def test_upscale_says_what_it_computed_in(own, tmp_path, capsys):
    import numpy as np

    from scaleport.imaging.files import Image, save_image

    save_image(tmp_path / "a.png", Image(np.full((9, 8, 3), 99, np.uint8)))
    line = ["upscale", str(tmp_path / "a.png"), "-m", str(own), "-s", "2", "--backend", "torch"]
    assert main([*line, "--inference-precision", "bf16", "-o", str(tmp_path / "b.png")]) == 0
    assert "fp32 in bf16" in capsys.readouterr().out
