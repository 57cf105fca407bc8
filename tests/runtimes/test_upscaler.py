"""Loading a bundle: which backend is chosen, what is refused, what is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scaleport
from scaleport.bundle.reader import open_bundle
from scaleport.errors import ArtifactError, BackendError, UsageError
from scaleport.models.network import build_network
from scaleport.runtimes.base import Availability, SessionOptions
from scaleport.runtimes.registry import get_backend, own_backends
from scaleport.runtimes.upscaler import BundleSource, load
from scaleport.runtimes.view import TilePolicy
from scaleport.validation.pictures import picture


@pytest.fixture
def usable(monkeypatch):
    """Function that lets exactly these backends run, as far as loading can tell."""

    def only(*names, emulated=("coreml",)):
        for backend in own_backends():
            there = backend.name in names
            reason = "" if there else f"{backend.name} was removed"
            found = Availability(there, reason, emulated=backend.name in emulated)
            monkeypatch.setattr(backend, "availability", lambda found=found: found)

    return only


@pytest.fixture(scope="module")
def bundle(torch_bundle):
    """A bundle with graphs in the format onnx, which only the torch backend can really run."""
    torch.manual_seed(1)
    encoder = {"name": "edsr", "width": 4, "blocks": 1}
    network = build_network({"encoder": encoder, "upsampler": {"name": "spconv", "scale": 2}})
    return torch_bundle(network, precisions=("fp32",))


def with_formats(monkeypatch, *formats):
    monkeypatch.setattr("scaleport.bundle.reader.Bundle.formats", lambda self: formats)
    monkeypatch.setattr("scaleport.bundle.reader.Bundle.precisions", lambda self, form: ("fp32",))


ALL = ("tensorrt", "coreml", "openvino", "onnxruntime", "torch")


@pytest.mark.parametrize(
    ("emulated", "names", "chosen"),
    [
        (["coreml"], ALL, "tensorrt"),
        (["coreml"], ALL[1:], "openvino"),
        ([], ALL[1:], "coreml"),
        (["coreml"], ALL[3:], "onnxruntime"),
        (["coreml"], ("coreml", "torch"), "torch"),
    ],
)
def test_auto_takes_the_first_that_can_run(bundle, usable, monkeypatch, emulated, names, chosen):
    usable(*names, emulated=emulated)
    with_formats(monkeypatch, "onnx", "openvino", "tensorrt", "coreml")
    assert load(bundle).backend == chosen


def test_auto_takes_only_what_the_bundle_has(bundle, usable):
    usable(*ALL)
    assert load(bundle).backend == "onnxruntime"


def test_auto_says_why_there_is_none(bundle, usable):
    usable("tensorrt", "coreml")
    with pytest.raises(BackendError) as caught:
        load(bundle)
    text = str(caught.value)
    assert "tensorrt: no graphs in this bundle" in text
    assert "onnxruntime: onnxruntime was removed" in text
    assert "torch: torch was removed" in text


def test_emulated_core_ml_is_never_chosen_by_itself(bundle, usable, monkeypatch):
    usable("coreml")
    with_formats(monkeypatch, "coreml")
    with pytest.raises(BackendError, match="coreml: only emulated here"):
        load(bundle)


def test_unknown_backend_lists_the_known(bundle):
    words = r"'onnx' \(did you mean onnxruntime\?\); known: .*, openvino"
    with pytest.raises(UsageError, match=words):
        load(bundle, "onnx")


def test_missing_backend_says_what_to_install(bundle, monkeypatch):
    found = Availability(False, "no module named openvino", extra="openvino")
    monkeypatch.setattr(get_backend("openvino"), "availability", lambda: found)
    with pytest.raises(BackendError, match=r"no module named.*pip install 'scaleport\[openvino\]'"):
        load(bundle, "openvino")


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_missing_precision_lists_what_there_is(bundle, backend):
    with pytest.raises(UsageError, match=r"fp16.*fp32"):
        load(bundle, backend, "fp16")


def test_missing_format_lists_what_there_is(bundle):
    with pytest.raises(UsageError, match=r"openvino.*onnx"):
        load(bundle, "openvino")


def test_no_bundle(tmp_path):
    with pytest.raises(UsageError, match=r"there is no bundle at .*nowhere\.bundle"):
        load(tmp_path / "nowhere.bundle")
    (tmp_path / "empty.bundle").mkdir()
    with pytest.raises(ArtifactError, match=r"empty\.bundle"):
        load(tmp_path / "empty.bundle")


def test_first_precision_is_the_default(bundle, tiny_bundle):
    assert load(bundle, "torch").precision == "fp32"
    assert load(tiny_bundle("liif"), "openvino").precision == "fp32"


def test_report_of_what_runs(tiny_bundle):
    up = load(tiny_bundle("liif"), "onnxruntime", "fp16")
    assert up.device == "CPUExecutionProvider"
    assert (up.backend, up.precision) == ("onnxruntime", "fp16")
    assert repr(up) == "<Upscaler tiny-liif on onnxruntime, fp16, x1 to x8>"
    assert up.manifest.family == "query"
    assert load(tiny_bundle("liif"), "openvino").device == "CPU"
    assert load(tiny_bundle("liif"), "torch").device in ("cpu", "cuda")


def test_unknown_device_is_an_error(tiny_bundle):
    up = load(tiny_bundle("liif"), "onnxruntime", device="QuantumExecutionProvider")
    with pytest.raises(BackendError, match="no QuantumExecutionProvider; it has"):
        _ = up.device


@pytest.mark.parametrize(
    ("backend", "asked", "words"),
    [
        ("onnxruntime", "bf16", "in the precision of the graph"),
        ("torch", "tf32", "tf32 needs an NVIDIA GPU"),
    ],
)
def test_lower_arithmetic_is_refused_where_it_cannot_be_had(tiny_bundle, backend, asked, words):
    options = SessionOptions(inference_precision=asked, device="cpu" if backend == "torch" else "")
    up = load(tiny_bundle("liif"), backend, options=options)
    with pytest.raises(BackendError, match=words):
        up(picture(8, 8), 2.0)


def test_options_reach_the_backend(bundle):
    policy = TilePolicy(tile=7)
    up = load(bundle, "torch", threads=3, device="cpu", policy=policy)
    assert (up.stages.options.threads, up.stages.options.device) == (3, "cpu")
    assert up.policy == policy
    given = SessionOptions(device="cpu", extra={"a": 1})
    combined = load(bundle, "torch", threads=3, options=given).stages.options
    assert combined == SessionOptions(threads=3, device="cpu", extra={"a": 1})
    assert load(bundle, "torch", options=combined, device="cpu").stages.options == combined


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threads": 3}, "threads=3 contradicts the options, which say 2"),
        ({"device": "cuda"}, "device='cuda' contradicts"),
        ({"inference_precision": "fp16"}, "inference_precision='fp16' contradicts"),
    ],
)
def test_options_are_not_contradicted(bundle, arguments, words):
    given = SessionOptions(threads=2, device="cpu", inference_precision="bf16")
    with pytest.raises(UsageError, match=words):
        load(bundle, "torch", options=given, **arguments)


def test_unknown_inference_precision_lists_the_known(bundle):
    with pytest.raises(UsageError, match=r"'fp8'; known: fp32, tf32, bf16, fp16"):
        load(bundle, "torch", inference_precision="fp8")


def test_a_bundle_that_is_open_is_loaded_as_it_is(bundle, monkeypatch):
    opened = open_bundle(bundle)
    monkeypatch.setattr("scaleport.runtimes.upscaler.open_bundle", None)
    up = load(opened, "torch")
    assert up.stages.source == BundleSource(opened)
    assert up(picture(6, 7), 2.0).shape == (1, 3, 12, 14)
    with pytest.raises(UsageError, match="give allow and verify_key to open_bundle"):
        load(opened, "torch", allow=["custom-ops"])


def test_call_is_open_and_render(bundle):
    up = scaleport.load(bundle, backend="torch")
    image = (picture(9, 8)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    seen = []
    out = up(image, scale=1.5, progress=lambda done, total, _: seen.append((done, total)))
    assert out.shape == (14, 12, 3)
    assert seen == [(1, 1)]
    np.testing.assert_array_equal(out, up.open(image).render(1.5))
    np.testing.assert_array_equal(up(image, size=(14, 12)), out)
