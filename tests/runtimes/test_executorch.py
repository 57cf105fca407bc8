"""ExecuTorch: what is said without the package, and what its programs compute with it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scaleport.bundle.reader import open_bundle  # noqa: E402
from scaleport.errors import BackendError, UsageError  # noqa: E402
from scaleport.export.exporter import export_bundle  # noqa: E402
from scaleport.export.plan import ExportOptions  # noqa: E402
from scaleport.export.static import StaticShape  # noqa: E402
from scaleport.runtimes import executorch  # noqa: E402
from scaleport.runtimes.base import GraphFile, Session, SessionOptions  # noqa: E402
from scaleport.runtimes.executorch import ExecuTorchBackend  # noqa: E402
from scaleport.runtimes.upscaler import load  # noqa: E402
from scaleport.validation.parity.gates import passed  # noqa: E402
from scaleport.validation.parity.options import ValidationOptions  # noqa: E402
from scaleport.validation.parity.proof import validate  # noqa: E402
from scaleport.validation.pictures import pictures  # noqa: E402
from scaleport.validation.report.summary import describe, failures  # noqa: E402

HEIGHT, WIDTH = 24, 32

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None,
    reason="executorch is not installed; make test-executorch installs it beside the others",
)


class TestWithoutThePackage:
    @pytest.fixture(autouse=True)
    def gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = importlib.util.find_spec

        def find(name: str, package: str | None = None) -> Any:
            return None if name == "executorch" else found(name, package)

        monkeypatch.setattr(executorch.importlib.util, "find_spec", find)
        for name in ("executorch", "executorch.runtime"):
            monkeypatch.setitem(__import__("sys").modules, name, None)

    def test_it_is_not_usable_and_says_what_to_install(self) -> None:
        there = ExecuTorchBackend().availability()
        assert not there.usable
        assert there.reason == "executorch is not installed"
        assert there.extra == "executorch"

    def test_a_program_cannot_be_loaded(self, tmp_path: Path) -> None:
        graph = GraphFile(tmp_path / "encode.pte", "encode", "fp32", ("image",), ("features",))
        with pytest.raises(BackendError, match=r"pip install 'scaleport\[executorch\]'"):
            ExecuTorchBackend().load(graph, SessionOptions())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SessionOptions(device="cuda"), "no device 'cuda' here, only cpu"),
        (SessionOptions(inference_precision="bf16"), "export another precision"),
    ],
)
def test_impossible_options(tmp_path: Path, options: SessionOptions, words: str) -> None:
    graph = GraphFile(tmp_path / "encode.pte", "encode", "fp32", ("image",), ("features",))
    with pytest.raises(UsageError, match=words):
        ExecuTorchBackend().load(graph, options)


@pytest.fixture(scope="module")
def programs(tiny_checkpoint: Any, shared: Any) -> Callable[[str], Path]:
    """Function from ``liif`` or ``igconv`` to a bundle of fixed shape with ExecuTorch programs."""

    def get(name: str) -> Path:
        def make(path: Path) -> None:
            options = ExportOptions(
                formats=("executorch",), static=StaticShape(HEIGHT, WIDTH), freeze_scales=(2,)
            )
            if name == "liif":
                options = ExportOptions(formats=("executorch",), static=options.static)
            export_bundle(tiny_checkpoint(name), path, options)

        found: Path = shared(f"executorch-{name}.bundle", make)
        return found

    return get


@needs_package
@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_parity(programs: Callable[[str], Path], name: str) -> None:
    options = ValidationOptions(selection="quick", backends=("executorch",))
    parity = validate(programs(name), options)
    assert passed(parity), "\n".join(map(describe, failures(parity)))
    measured = {(r.precision, r.mode) for r in parity.results if r.max_abs is not None}
    assert measured == {(p, m) for p in ("fp32", "fp16") for m in ("staged", "tiled", "whole")}
    assert "XNNPACK" in parity.device["executorch"]


@pytest.fixture
def session(programs: Callable[[str], Path]) -> Session:
    bundle = open_bundle(programs("liif"))
    (entry,) = bundle.graphs("executorch", "encode", "fp32")
    names = (tuple(t.name for t in entry.inputs), tuple(t.name for t in entry.outputs))
    graph = GraphFile(bundle.file(entry.path), "encode", "fp32", *names)
    return ExecuTorchBackend().load(graph, SessionOptions())


@needs_package
def test_many_callers_get_their_own_pixels(programs: Callable[[str], Path]) -> None:
    upscaler = load(programs("liif"), "executorch", "fp32")
    levels = np.linspace(0, 1, 8, dtype=np.float32)
    images = [np.full((1, 3, HEIGHT, WIDTH), level, np.float32) for level in levels]
    alone = [upscaler(image, 2) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: upscaler(image, 2), images * 2))
    for got, want in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(got, want)


@needs_package
def test_what_a_session_takes(session: Session) -> None:
    assert [(s.name, s.shape) for s in session.inputs] == [("image", (1, 3, HEIGHT, WIDTH))]
    with pytest.raises(UsageError, match="must have shape 1x3x24x32"):
        session.run({"image": pictures(HEIGHT, WIDTH + 1, 1)})
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": pictures(HEIGHT, WIDTH, 1)})


@needs_package
def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encode.pte"
    path.write_bytes(b"\x08\0\0\0ET12" + bytes(64))
    graph = GraphFile(path, "encode", "fp32", ("image",), ("features",))
    with pytest.raises(BackendError, match=r"refuses encode\.pte"):
        ExecuTorchBackend().load(graph, SessionOptions())
