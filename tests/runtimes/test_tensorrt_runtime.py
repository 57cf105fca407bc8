"""What can be said about the TensorRT runtime without a GPU. Execution is not pretended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scaleport.errors import (
    ArtifactError,
    BackendError,
    UsageError,
)
from scaleport.runtimes import cuda
from scaleport.runtimes.base import Backend, GraphFile, SessionOptions
from scaleport.runtimes.engine_library import load_library, logged
from scaleport.runtimes.engine_record import (
    PORTABLE,
    EngineInfo,
    ShapeRange,
    mismatch,
    read_record,
    record_path,
)
from scaleport.runtimes.engine_session import check_feeds
from scaleport.runtimes.tensorrt import TensorRTBackend
from scaleport.tensor import UNNAMED, TensorSpec

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")

RANGE = ShapeRange(min=(1, 3, 4, 4), opt=(1, 3, 8, 8), max=(2, 3, 32, 16))


def has_gpu() -> bool:
    try:
        cuda.find_device()
    except BackendError:
        return False
    return True


no_gpu = pytest.mark.skipif(has_gpu(), reason="tells how a machine without a GPU behaves")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real engine: a Relu over images, built ahead of time."""
    from scaleport.export.tensorrt import TensorRTOptions, build_engine

    shape = ["N", 3, "H", "W"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["out"])],
        "relu",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = tmp_path_factory.mktemp("engine")
    onnx.save(model, folder / "relu.onnx")
    options = TensorRTOptions(library="tensorrt_rtx")
    build_engine(folder / "relu.onnx", folder / "relu.engine", {"image": RANGE}, options)
    return folder / "relu.engine"


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    """A copy of the engine and its record, to be spoilt by a test."""
    for path in (built, record_path(built)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / built.name


def change_record(engine: Path, **changes: Any) -> EngineInfo:
    info = read_record(engine)
    assert info is not None
    info = msgspec.structs.replace(info, **changes)
    record_path(engine).write_bytes(msgspec.json.encode(info))
    return info


def load(engine: Path, **options: Any) -> Any:
    graph = GraphFile(engine, "encode", "fp32", ("image",), ("out",))
    return TensorRTBackend().load(graph, SessionOptions(**options))


def test_backend_follows_the_protocol() -> None:
    backend = TensorRTBackend()
    assert isinstance(backend, Backend)
    assert (backend.name, backend.graph_format) == ("tensorrt", "tensorrt")


def test_import_needs_neither_torch_nor_a_library() -> None:
    code = (
        "import sys; import scaleport.runtimes.tensorrt; print([m for m in ('torch', 'onnx', "
        "'tensorrt', 'tensorrt_rtx', 'cuda.bindings') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@no_gpu
def test_availability_without_a_gpu() -> None:
    state = TensorRTBackend().availability()
    assert not state.usable
    assert state.can_build
    assert state.reason.startswith("There is no usable NVIDIA GPU or driver: ")
    assert "\n" not in state.reason
    assert (state.extra, state.device) == ("", "")
    assert trt.__version__ in state.version


@no_gpu
def test_availability_with_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    state = TensorRTBackend().availability()
    assert (state.usable, state.can_build, state.extra) == (False, False, "tensorrt-rtx")
    assert state.reason == "Neither TensorRT nor TensorRT-RTX is installed."


def test_availability_without_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, cuda.MODULE, None)
    state = TensorRTBackend().availability()
    assert (state.usable, state.can_build, state.extra) == (False, True, "tensorrt-rtx")
    assert "cuda-python" in state.reason


@no_gpu
def test_full_tensorrt_alone_cannot_build_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.13.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    state = TensorRTBackend().availability()
    assert (state.usable, state.can_build) == (False, False)
    assert state.version == "TensorRT 10.13.0"


def test_availability_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scaleport.runtimes.tensorrt.find_device", lambda: cuda.Device(0, "GPU of a test", "8.9")
    )
    state = TensorRTBackend().availability()
    assert state.usable
    assert state.can_build
    assert state.device == "GPU of a test (compute capability 8.9)"
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    state = TensorRTBackend().availability()
    assert (state.usable, state.device, state.extra) == (False, "", "tensorrt")


@no_gpu
def test_real_bindings_report_the_missing_gpu() -> None:
    with pytest.raises(BackendError, match=r"could not find an NVIDIA GPU: .+ \(error \d+\)"):
        cuda.find_device()


@no_gpu
def test_loading_without_a_gpu_is_one_line(engine: Path) -> None:
    with pytest.raises(BackendError) as caught:
        load(engine)
    assert "NVIDIA GPU" in str(caught.value)
    assert "\n" not in str(caught.value)


@no_gpu
def test_libraries_open_no_engine_without_a_gpu(engine: Path) -> None:
    """The reason for the record: should this ever pass, engines can be read without one."""
    with logged(load_library("tensorrt_rtx")) as (logger, messages):
        assert trt.Runtime(logger).deserialize_cuda_engine(engine.read_bytes()) is None
    assert "CUDA driver version is insufficient" in messages.first_error


def test_engine_of_another_version_is_to_be_rebuilt(engine: Path) -> None:
    change_record(engine, version="1.2.3")
    with pytest.raises(ArtifactError, match=r"built by tensorrt_rtx 1\.2\.3.*ONNX graph"):
        load(engine)


def test_engine_of_a_missing_library_says_what_to_install(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    change_record(engine, library="tensorrt", version="10.13.0")
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[tensorrt\]'"):
        load(engine)


def test_engine_for_another_gpu_is_to_be_rebuilt(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_record(engine, compute_capabilities=("8.9", "12.0"))
    monkeypatch.setattr(
        "scaleport.runtimes.tensorrt.find_device", lambda _: cuda.Device(0, "GPU", "8.6")
    )
    with pytest.raises(ArtifactError, match=r"capability 8\.9, 12\.0, and this GPU has 8\.6.*ONNX"):
        load(engine)


@pytest.mark.parametrize(
    ("built_for", "gpu", "fits"),
    [
        (("8.9",), "8.9", True),
        (("8.9",), "8.6", False),
        (("8.6", "12.0"), "12.0", True),
        ((PORTABLE,), "8.0", True),
        ((PORTABLE,), "12.1", True),
        ((PORTABLE,), "7.5", False),
        (("7.5",), "", True),
    ],
)
def test_mismatch_of_compute_capability(
    built_for: tuple[str, ...], gpu: str, fits: bool, built: Path
) -> None:
    info = read_record(built)
    assert info is not None
    info = msgspec.structs.replace(info, compute_capabilities=built_for)
    assert (mismatch(info, info.library, info.version, gpu) == "") == fits


def spoil_engine(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


def truncate_engine(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])


def spoil_record(engine: Path) -> None:
    record_path(engine).write_bytes(b'{"library": ')


def record_that_is_not_text(engine: Path) -> None:
    record_path(engine).write_bytes(b'{"library": "\xff"}')


def newer_record(engine: Path) -> None:
    change_record(engine, record_version=99)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_engine, "not the engine that relu.engine.json describes"),
        (truncate_engine, "not the engine that relu.engine.json describes"),
        (spoil_record, "relu.engine.json is damaged"),
        (record_that_is_not_text, "relu.engine.json is damaged"),
        (newer_record, "has version 99"),
        (Path.unlink, "there is no engine at"),
    ],
)
def test_damage_is_an_artifact_error(
    spoil: Callable[[Path], None], words: str, engine: Path
) -> None:
    spoil(engine)
    for read in (read_record, load):
        with pytest.raises(ArtifactError) as caught:
            read(engine)
        assert words in str(caught.value)


@no_gpu
def test_engine_of_other_tools_has_no_record(engine: Path) -> None:
    record_path(engine).unlink()
    assert read_record(engine) is None
    with pytest.raises(BackendError, match="NVIDIA GPU"):
        load(engine)


def test_record_names_dynamic_dimensions_as_the_graph_does(engine: Path) -> None:
    info = read_record(engine)
    assert info is not None
    assert info.inputs == (TensorSpec("image", "float32", ("N", 3, "H", "W")),)
    # TensorRT keeps no names of what it computes.
    assert info.outputs == (TensorSpec("out", "float32", (UNNAMED, 3, UNNAMED, UNNAMED)),)
    assert info.profile == {"image": RANGE}


def test_record_of_the_first_version_is_read(engine: Path) -> None:
    path = record_path(engine)
    stored = msgspec.json.decode(path.read_bytes())
    stored["record_version"] = 1
    for tensor in (*stored["inputs"], *stored["outputs"]):
        tensor["shape"] = [-1 if isinstance(d, str) else d for d in tensor["shape"]]
    path.write_bytes(msgspec.json.encode(stored))
    info = read_record(engine)
    assert info is not None
    assert info.inputs == (TensorSpec("image", "float32", (UNNAMED, 3, UNNAMED, UNNAMED)),)
    for damaged in ([-2, 3], ["a b"], "NCHW"):
        stored["inputs"][0]["shape"] = damaged
        path.write_bytes(msgspec.json.encode(stored))
        with pytest.raises(ArtifactError, match="is damaged"):
            read_record(engine)


def test_record_nested_too_deep_is_damaged(engine: Path) -> None:
    record_path(engine).write_bytes(b"[" * 100_000)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_record(engine)


def test_options_that_an_engine_cannot_follow(engine: Path) -> None:
    with pytest.raises(BackendError, match="precision is fixed"):
        load(engine, inference_precision="fp16")
    with pytest.raises(UsageError, match="GPU's number"):
        load(engine, device="gpu")


INPUTS = (
    TensorSpec("image", "float32", ("N", 3, "H", "W")),
    TensorSpec("size", "int64", (2,)),
)
RANGES = {"image": RANGE, "size": ShapeRange(min=(4, 4), opt=(16, 16), max=(128, 64), of="values")}


def feeds(**changes: Any) -> dict[str, Any]:
    right = {"image": np.zeros((1, 3, 5, 7), np.float32), "size": np.array([10, 14])}
    return {k: v for k, v in {**right, **changes}.items() if v is not None}


def test_feeds_in_order() -> None:
    wide = np.arange(2 * 3 * 8 * 14, dtype=np.float32).reshape(2, 3, 8, 14)[..., ::2]
    values = check_feeds(INPUTS, RANGES, {"size": np.array([128, 64]), "image": wide})
    assert list(values) == ["image", "size"]
    np.testing.assert_array_equal(values["image"], wide)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (feeds(size=None), "input 'size' is missing"),
        (feeds(ghost=np.zeros(1)), "unknown input ghost"),
        (feeds(image=np.zeros((1, 3, 5, 7))), "must be float32, got float64"),
        (
            feeds(image=np.zeros((1, 4, 5, 7), np.float32)),
            "must have shape Nx3xHxW, got 1x4x5x7",
        ),
        (feeds(image=np.zeros((1, 3, 3, 7), np.float32)), r"outside.*\[1, 3, 4, 4\] to"),
        (feeds(image=np.zeros((1, 3, 5, 17), np.float32)), r"shape \[1, 3, 5, 17\].*outside"),
        (feeds(size=np.array([10, 65])), r"values \[10, 65\] of input 'size' is outside"),
    ],
)
def test_wrong_feeds(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_feeds(INPUTS, RANGES, wrong)
