"""Running the grid: faults become failed cases with a reason; results are kept and merged."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import pytest
import torch
from validation_samples import parity, result

from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import ArtifactError, BackendError, OutputError, UsageError
from scaleport.grid import Grid
from scaleport.models import load_checkpoint
from scaleport.models.network import build_network
from scaleport.runtimes.base import Availability
from scaleport.runtimes.registry import get_backend
from scaleport.runtimes.torch import TorchSession
from scaleport.validation.parity.cases import Shape
from scaleport.validation.parity.gates import NOT_RUN, Gate, Gates, not_run, passed
from scaleport.validation.parity.options import ValidationOptions
from scaleport.validation.parity.proof import store, validate
from scaleport.validation.parity.reference import Reference
from scaleport.validation.report.summary import failures


@pytest.fixture(scope="module")
def bundle(torch_bundle):
    """Quick to compare: a few weights, one native scale, and only torch can really run it."""
    torch.manual_seed(4)
    encoder = {"name": "edsr", "width": 4, "blocks": 1}
    network = build_network({"encoder": encoder, "upsampler": {"name": "spconv", "scale": 2}})
    return torch_bundle(network)


@pytest.fixture
def own(bundle, tmp_path):
    """A copy that may be changed."""
    shutil.copytree(bundle, tmp_path / "own.bundle")
    return tmp_path / "own.bundle"


def quick(bundle, precision="fp32", progress=None, **options):
    chosen = ValidationOptions(["torch"], [precision], "quick", **options)
    return validate(bundle, chosen, progress)


def test_a_right_network_passes_and_says_what_ran(bundle):
    seen = []
    found = quick(bundle, progress=lambda *told: seen.append(told))
    assert passed(found)
    assert seen == [(i + 1, len(found.results), "torch fp32") for i in range(len(seen))]
    assert len(seen) == len(found.results)
    assert found.device["torch"] in ("cpu", "cuda")
    assert found.tool_versions["torch"] == torch.__version__
    assert found.gates == Gates().limits()


def test_graphs_that_do_not_load_are_failed_cases(bundle):
    found = validate(bundle, ValidationOptions(["onnxruntime"], ["fp32"], "quick"))
    measured = [r for r in found.results if "outside" not in r.note and "refused" not in r.note]
    assert measured
    assert all(not r.passed and "ONNX Runtime refuses encode.onnx" in r.note for r in measured)
    assert "graphs do not load" in found.device["onnxruntime"]


def test_backends_without_graphs_are_left_out_with_the_reason(bundle, monkeypatch):
    monkeypatch.setattr("scaleport.runtimes.registry.backend_names", lambda: ["openvino", "torch"])
    found = validate(bundle, ValidationOptions(precisions=["fp16"], selection="quick"))
    assert not_run(found) == {"openvino": "the bundle has no openvino graphs to compare"}
    assert {r.backend for r in found.results} == {"torch"}


def test_a_skipped_format_says_why_it_was_skipped(own, monkeypatch):
    manifest = read_manifest(own)
    changed = msgspec.structs.replace(manifest, skipped={"openvino": "it was not installed"})
    (own / "manifest.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(UsageError, match="skipped at export: it was not installed"):
        validate(own, ValidationOptions(["openvino"]))


@pytest.mark.parametrize(
    ("backends", "precisions", "words"),
    [
        (["abacus"], None, "unknown backend 'abacus'"),
        (["openvino"], None, "openvino was asked for and cannot be compared"),
        (None, ["fp64"], "unknown precision 'fp64'; known: fp32, fp16"),
        (None, ["int8"], "no parity gate for precision 'int8'"),
    ],
)
def test_what_cannot_be_compared(bundle, backends, precisions, words):
    with pytest.raises(UsageError, match=words):
        validate(bundle, ValidationOptions(backends, precisions, "quick"))


def test_a_backend_that_is_not_installed(bundle, monkeypatch):
    gone = Availability(False, "gone", extra="onnxruntime")
    monkeypatch.setattr(get_backend("onnxruntime"), "availability", lambda: gone)
    with pytest.raises(BackendError, match="gone; install it with"):
        validate(bundle, ValidationOptions(["onnxruntime"], selection="quick"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda out: out * np.float32(np.nan), "torch returned NaN or infinity in 'upscaled'"),
        (lambda out: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda out: out + np.float32(1e-3), "max abs 1.0"),
    ],
)
def test_faults_of_a_backend_are_failed_cases(bundle, monkeypatch, fault, words):
    right = TorchSession.run

    def wrong(self, feeds, keep=()):
        outputs = right(self, feeds, keep)
        return {n: fault(v) if n == "upscaled" else v for n, v in outputs.items()}

    monkeypatch.setattr(TorchSession, "run", wrong)
    found = quick(bundle)
    failed = failures(found)
    assert not passed(found)
    assert len(failed) == sum("refused" not in r.note for r in found.results)
    assert all(words in r.note for r in failed)


def test_a_scale_that_is_not_refused_is_a_failure(bundle, monkeypatch):
    def anything(manifest, height, width, scale, size):
        return Grid.from_size(height, width, height, width)

    monkeypatch.setattr("scaleport.runtimes.view.checked_grid", anything)
    notes = {r.note for r in failures(quick(bundle))}
    assert "outside the declared range, and not refused" in notes


def test_a_damaged_checkpoint_ends_the_run(own):
    path = own / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        quick(own)


def test_gates_decide(bundle):
    nothing = Gates(fp32=Gate(), fp16=Gate(psnr=500.0))
    assert passed(quick(bundle, gates=nothing))
    assert not passed(quick(bundle, "fp16", gates=nothing))


def test_stored_results_replace_their_own_kind_only(own):
    manifest, gates = read_manifest(own), Gates()
    stored = store(own, manifest, parity(result(psnr=90.0), result("coreml")), gates)
    assert read_manifest(own).parity == stored
    newer = parity(
        result(psnr=95.0),
        device={"onnxruntime": "CPU", "coreml": NOT_RUN + "no Mac"},
        tool_versions={"scaleport": "0.2.0"},
    )
    merged = store(own, read_manifest(own), newer, gates)
    assert [(r.backend, r.psnr) for r in merged.results] == [("coreml", 120.0), ("onnxruntime", 95)]
    # The older result was made somewhere that could run it.
    assert merged.device == {"onnxruntime": "CPU", "coreml": "CPU"}
    assert merged.tool_versions == {"scaleport": "0.2.0"}
    assert read_manifest(own).parity == merged
    assert open_bundle(own, verify="all")


def test_kept_results_are_judged_by_the_new_gates(own):
    gates = Gates()
    store(own, read_manifest(own), parity(result("coreml", psnr=90.0)), gates)
    strict = Gates(fp32=Gate(psnr=100.0))
    new = parity(result(), gates=strict.limits())
    merged = store(own, read_manifest(own), new, strict)
    assert [r.passed for r in merged.results] == [False, True]


def test_precisions_of_a_backend_are_kept_apart(own):
    half = result(precision="fp16", psnr=60.0)
    store(own, read_manifest(own), parity(result(), half), Gates())
    merged = store(own, read_manifest(own), parity(result(psnr=99.0)), Gates())
    assert [(r.precision, r.psnr) for r in merged.results] == [("fp16", 60.0), ("fp32", 99.0)]


def test_a_bundle_that_was_exported_anew_is_not_overwritten(own):
    old = read_manifest(own)
    other = msgspec.structs.replace(old.files["model.safetensors"], sha256="0" * 64)
    newer = msgspec.structs.replace(old, files={**old.files, "model.safetensors": other})
    (own / "manifest.json").write_bytes(msgspec.json.encode(newer))
    with pytest.raises(OutputError, match="has changed since it was opened"):
        store(own, old, parity(result()), Gates())
    assert read_manifest(own).parity is None


def test_reference_is_the_checkpoint_in_training_form(bundle, monkeypatch):
    reference = Reference(open_bundle(bundle))
    shape = Shape("some", 9, 11)
    first = reference.output(shape, (1.5, 2.0))
    network = load_checkpoint(bundle / "model.safetensors")
    with torch.inference_mode():
        image = torch.from_numpy(reference.image(shape))
        expected = network(image, Grid.from_scale(9, 11, (1.5, 2.0))).numpy()
    np.testing.assert_array_equal(first, expected)
    monkeypatch.setattr(reference, "upscale", None)
    assert reference.output(shape, (1.5, 2.0)) is first
