"""Our own backends are in a table; those of other packages are found through entry points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy_backend import NumpyBackend, blur, write_bundle

import scaleport
from scaleport.errors import BackendError, UsageError
from scaleport.plugins import BACKENDS, claims
from scaleport.runtimes import registry
from scaleport.runtimes.base import (
    Availability,
    Backend,
    offers,
    source_format,
    stored_format,
    title_of,
)

OURS = ["coreml", "executorch", "onnxruntime", "openvino", "tensorrt", "torch"]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Function that installs a package with one backend, as pip would lay it out."""

    def install(name, target):
        info = tmp_path / f"stranger_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: stranger-{name}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[{BACKENDS}]\n{name} = {target}\n")
        forget()

    def forget():
        claims.cache_clear()
        registry.get_backend.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    yield install
    monkeypatch.undo()
    forget()


def test_our_own_are_in_the_table():
    assert sorted(registry.OWN) == OURS
    for name in OURS:
        backend = registry.get_backend(name)
        assert isinstance(backend, Backend)
        assert backend.name == name
        assert isinstance(backend.availability(), Availability)


def test_other_packages_are_not_looked_for_where_one_of_ours_does(tiny_bundle, monkeypatch):
    def refuse(group):
        raise AssertionError(f"the entry points {group} were read")

    monkeypatch.setattr(registry, "claims", refuse)
    path = tiny_bundle("liif")
    assert scaleport.load(path).backend == "openvino"
    assert scaleport.load(path, backend="torch").backend == "torch"


def test_only_backends_with_graphs_in_the_bundle_are_asked(tiny_bundle, monkeypatch):
    def refuse(self):
        raise AssertionError(f"{self.name} was asked")

    for name in ("tensorrt", "coreml"):
        monkeypatch.setattr(type(registry.get_backend(name)), "availability", refuse)
    assert scaleport.load(tiny_bundle("liif")).backend == "openvino"


def test_a_stranger_is_found_and_runs(plugin, tmp_path):
    plugin("numpy", "numpy_backend:NumpyBackend")
    assert registry.backend_names() == sorted([*OURS, "numpy"])
    path = write_bundle(tmp_path / "m.bundle")
    image = np.random.default_rng(0).random((1, 3, 6, 7), dtype=np.float32)
    up = scaleport.load(path, backend="numpy")
    np.testing.assert_array_equal(up(image, 1.0), blur(image))
    assert up.device == "numpy on this processor"


def test_a_stranger_is_chosen_when_nothing_else_fits(plugin, tmp_path, monkeypatch):
    plugin("numpy", "numpy_backend:NumpyBackend")
    gone = Availability(False, "removed")
    monkeypatch.setattr(registry.get_backend("torch"), "availability", lambda: gone)
    assert scaleport.load(write_bundle(tmp_path / "m.bundle")).backend == "numpy"


def test_a_stranger_that_breaks_is_named(plugin):
    plugin("broken", "numpy_backend:NoSuchClass")
    with pytest.raises(
        BackendError,
        match=r"'broken' of the package stranger-broken cannot be loaded: .*NoSuchClass",
    ):
        registry.get_backend("broken")
    assert registry.get_backend("torch").name == "torch"


def test_a_stranger_that_is_no_backend_is_told_what_to_derive_from(plugin):
    plugin("duck", "numpy_backend:SessionOptions")
    with pytest.raises(
        BackendError, match=r"'duck' of the package stranger-duck .* derived from .*base\.Backend"
    ):
        registry.get_backend("duck")


def test_a_minimal_backend_answers_every_question():
    class Minimal(Backend):
        name = "minimal"
        graph_format = "onnx"

        def availability(self):
            return Availability(True)

        def load(self, graph, options):
            raise NotImplementedError

    backend = Minimal()
    assert isinstance(backend, Backend)
    assert (title_of(backend), source_format(backend), stored_format(backend)) == (
        "minimal",
        "onnx",
        "onnx",
    )
    assert backend.glance() == Availability(True)
    assert (backend.devices(), backend.inference_precisions()) == ((), ("fp32",))
    assert not any(offers(backend, name) for name in ("inner", "operations", "glance"))
    with pytest.raises(UsageError, match="backend 'minimal' cannot show the tensors"):
        backend.inner(Path("m.onnx"), {})
    with pytest.raises(UsageError, match="backend 'minimal' does not tell which operations"):
        backend.operations(Path("m.onnx"), None)


def test_our_own_say_what_the_program_asks():
    own = {backend.name: backend for backend in registry.own_backends()}
    assert list(own) == ["tensorrt", "coreml", "openvino", "onnxruntime", "torch", "executorch"]
    assert [b.name for b in registry.int8_judges()] == ["onnxruntime", "openvino"]
    assert registry.checkpoint_backend() is own["torch"]
    assert {n: stored_format(b) for n, b in own.items()} == {
        "tensorrt": "tensorrt",
        "coreml": "coreml",
        "openvino": "openvino",
        "onnxruntime": "onnx",
        "torch": "onnx",
        "executorch": "executorch",
    }
    assert source_format(own["tensorrt"]) == "onnx"
    assert [n for n, b in own.items() if b.declared_sizes_only] == ["tensorrt", "coreml"]
    assert {b.whole_stage for b in own.values()} == {"whole", "whole_size", ""}
    assert [n for n, b in own.items() if not offers(b, "inner")] == ["torch", "executorch"]


def test_a_stranger_does_not_take_the_place_of_ours(plugin):
    plugin("torch", "numpy_backend:NumpyBackend")
    assert registry.get_backend("torch").graph_format == "torch"


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown backend 'abacus'; known: coreml, "):
        registry.get_backend("abacus")


def test_require_says_what_to_install(monkeypatch):
    found = Availability(False, "not there", extra="coreml")
    monkeypatch.setattr(registry.get_backend("coreml"), "availability", lambda: found)
    with pytest.raises(BackendError, match=r"not there; install it with.*'scaleport\[coreml\]'"):
        registry.require("coreml")


def test_backends_are_made_once():
    assert registry.get_backend("onnxruntime") is registry.get_backend("onnxruntime")
    assert isinstance(NumpyBackend(), Backend)
