"""What a build refuses, writes and records. TensorRT-RTX builds ahead of time, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tensorrt_graphs import IMAGE, IMAGE_IO, SIZE, conv_model, model_of, quantised_conv, whole_model

from scaleport.errors import (
    ArtifactError,
    BackendError,
    ExportError,
    OutputError,
    UnsupportedOpError,
    UsageError,
)
from scaleport.export.tensorrt import (
    ShapeRange,
    TensorRTOptions,
    build_engine,
    graph_sha256,
)
from scaleport.runtimes.cuda import Device
from scaleport.runtimes.engine_record import PORTABLE, read_record, record_path

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")


@pytest.fixture
def graph(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "source" / "graph.onnx"
        path.parent.mkdir(exist_ok=True)
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def assert_refused(
    kind: type[Exception],
    words: list[str],
    source: Path,
    out: Path,
    profile: dict[str, ShapeRange],
    options: TensorRTOptions | None = None,
) -> None:
    target = out / "refused.engine"
    target.write_bytes(b"the engine of yesterday")
    with pytest.raises(kind) as caught:
        build_engine(source, target, profile, options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for word in words:
        assert word in message
    assert [path.name for path in out.iterdir()] == [target.name]
    assert target.read_bytes() == b"the engine of yesterday"


def test_unknown_operation_names_its_node(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    node = helper.make_node("Frobnicate", ["image"], ["out"], name="strange_node")
    model = model_of([node], IMAGE_IO, {"out": (TensorProto.FLOAT, ["N", 3, "H", "W"])})
    assert_refused(
        UnsupportedOpError,
        ["'strange_node'", "Frobnicate", "graph.onnx"],
        graph(model),
        out,
        {"image": IMAGE},
    )


def test_unnamed_node_is_numbered(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("Frobnicate", ["x"], ["out"]),
    ]
    model = model_of(nodes, IMAGE_IO, {"out": (TensorProto.FLOAT, ["N", 3, "H", "W"])})
    assert_refused(
        UnsupportedOpError, ["node number 1 (Frobnicate)"], graph(model), out, {"image": IMAGE}
    )


def test_operation_that_is_listed_and_not_implemented(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    node = helper.make_node("Compress", ["image", "keep"], ["out"], axis=1, name="pick")
    model = model_of(
        [node],
        IMAGE_IO,
        {"out": (TensorProto.FLOAT, ["N", 2, "H", "W"])},
        {"keep": np.array([True, False, True])},
    )
    words = ["'pick' (Compress)", "knows no such operation"]
    assert_refused(UnsupportedOpError, words, graph(model), out, {"image": IMAGE})


def test_quantised_graph_builds(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    info = build_engine(graph(quantised_conv(False)), out / "int8.engine", {"image": IMAGE})
    assert info.precisions["int8"] >= 2


def test_quantised_bias_is_refused(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    """Why the quantiser leaves biases alone."""
    source = graph(quantised_conv(True))
    assert_refused(ExportError, ["'bias_node'", "Int32"], source, out, {"image": IMAGE})


def test_kernel_of_dynamic_width_is_refused(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    """Why the general render stage of IGConv is a matrix product."""
    node = helper.make_node("Conv", ["image", "k"], ["out"], name="cv", pads=[1, 1, 1, 1])
    model = model_of(
        [node],
        {**IMAGE_IO, "k": (TensorProto.FLOAT, ["K", 3, 3, 3])},
        {"out": (TensorProto.FLOAT, ["N", "K", "H", "W"])},
    )
    kernel = ShapeRange(min=(3, 3, 3, 3), opt=(12, 3, 3, 3), max=(48, 3, 3, 3))
    assert_refused(
        ExportError,
        ["'cv' (Conv)", "number of output channels: -1"],
        graph(model),
        out,
        {"image": IMAGE, "k": kernel},
    )


def shifted(**changes: tuple[int, ...]) -> ShapeRange:
    return msgspec.structs.replace(IMAGE, **changes)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"size": SIZE}, ["'image'", "needs a range of its shape"]),
        ({"image": IMAGE}, ["'size'", "needs a range of its values"]),
        ({"image": IMAGE, "size": SIZE, "ghost": IMAGE}, ["no input 'ghost'"]),
        (
            {"image": shifted(min=(1, 2, 4, 5)), "size": SIZE},
            ["dimension 1 of input 'image' is 3", "2 to 3"],
        ),
        ({"image": shifted(opt=(1, 3, 97, 32)), "size": SIZE}, ["not min <= opt <= max"]),
        ({"image": shifted(min=(1, 3, 4)), "size": SIZE}, ["need 4 numbers each"]),
        (
            {"image": IMAGE, "size": ShapeRange(min=(2,), opt=(2,), max=(2,))},
            ["'size' decides shapes by its values"],
        ),
        (
            {"image": msgspec.structs.replace(IMAGE, of="values"), "size": SIZE},
            ["'image' does not decide shapes"],
        ),
    ],
)
def test_ranges_that_do_not_fit_are_refused(
    profile: dict[str, ShapeRange],
    words: list[str],
    graph: Callable[[onnx.ModelProto], Path],
    out: Path,
) -> None:
    assert_refused(ExportError, words, graph(whole_model()), out, profile)


def test_failure_of_the_builder_carries_its_reason(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    """A fixed reshape cannot hold for every size of the profile."""
    node = helper.make_node("Reshape", ["image", "shape"], ["out"], name="frozen")
    model = model_of(
        [node],
        IMAGE_IO,
        {"out": (TensorProto.FLOAT, [1, 300])},
        {"shape": np.array([1, 300], np.int64)},
    )
    assert_refused(ExportError, ["graph.onnx", "frozen"], graph(model), out, {"image": IMAGE})


def test_file_that_is_no_graph(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\xff" * 100)
    assert_refused(ArtifactError, ["noise.onnx", "not an ONNX graph"], path, out, {"image": IMAGE})
    missing = tmp_path / "missing.onnx"
    assert_refused(ArtifactError, ["missing.onnx"], missing, out, {"image": IMAGE})


def test_target_that_cannot_be_written(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    source = graph(conv_model())
    with pytest.raises(OutputError, match="is a directory"):
        build_engine(source, out, {"image": IMAGE})
    (out / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write .*conv\.engine"):
        build_engine(source, out / "file" / "conv.engine", {"image": IMAGE})
    assert [path.name for path in out.iterdir()] == ["file"]


def test_interrupted_write_leaves_the_old_engine(
    graph: Callable[[onnx.ModelProto], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = out / "conv.engine"
    old = build_engine(graph(conv_model()), target, {"image": IMAGE})

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        build_engine(graph(conv_model(scale=2.0)), target, {"image": IMAGE})
    assert sorted(path.name for path in out.iterdir()) == ["conv.engine", "conv.engine.json"]
    assert read_record(target) == old


def test_record_of_another_engine_is_refused(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    """What a kill between the two renames leaves: a new record beside an old engine."""
    target = out / "conv.engine"
    build_engine(graph(conv_model()), target, {"image": IMAGE})
    engine = target.read_bytes()
    build_engine(graph(conv_model(scale=2.0)), target, {"image": IMAGE})
    target.write_bytes(engine)
    with pytest.raises(ArtifactError, match=r"not the engine that conv\.engine\.json"):
        read_record(target)


def test_record_tells_how_the_engine_was_built(
    graph: Callable[[onnx.ModelProto], Path], out: Path
) -> None:
    source, target = graph(conv_model()), out / "conv.engine"
    info = build_engine(source, target, {"image": IMAGE})
    assert (info.library, info.version) == ("tensorrt_rtx", trt.__version__)
    assert info.compute_capabilities == (PORTABLE,)
    assert info.onnx_sha256 == graph_sha256(source)
    assert info.bytes == target.stat().st_size
    assert info.network_layers >= 1
    assert info.build_seconds > 0
    assert read_record(target) == info
    assert json.loads(record_path(target).read_text())["library"] == "tensorrt_rtx"
    assert info.target() == {
        "library": "tensorrt_rtx",
        "version": trt.__version__,
        "compute_capabilities": PORTABLE,
        "onnx_sha256": info.onnx_sha256,
    }


def test_engine_for_chosen_gpus(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    source = graph(conv_model())
    chosen = TensorRTOptions(
        compute_capabilities=("8.6", "12.0"), optimization_level=1, workspace=64
    )
    info = build_engine(source, out / "two.engine", {"image": IMAGE}, chosen)
    assert info.compute_capabilities == ("8.6", "12.0")
    unknown = TensorRTOptions(compute_capabilities=("3.5",))
    with pytest.raises(ExportError, match=r"'3\.5', known: 7\.5, 8\.0, 8\.6"):
        build_engine(source, out / "old.engine", {"image": IMAGE}, unknown)
    assert not (out / "old.engine").exists()


def test_options_are_checked(graph: Callable[[onnx.ModelProto], Path], out: Path) -> None:
    with pytest.raises(UsageError, match="optimization level must be 0 to 5"):
        TensorRTOptions(optimization_level=6)
    with pytest.raises(UsageError, match="at least 0 MiB"):
        TensorRTOptions(workspace=-1)
    with pytest.raises(UsageError, match="unknown TensorRT library 'trt'"):
        build_engine(graph(conv_model()), out / "x", {"image": IMAGE}, TensorRTOptions("trt"))


def test_full_tensorrt_needs_a_gpu_to_build(
    graph: Callable[[onnx.ModelProto], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device() -> Device:
        raise BackendError("no driver")

    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.13.0"))
    monkeypatch.setattr("scaleport.export.tensorrt.find_device", no_device)
    source = graph(conv_model())
    with pytest.raises(BackendError, match=r"only where there is a GPU \(no driver\)"):
        build_engine(source, out / "x.engine", {"image": IMAGE}, TensorRTOptions("tensorrt"))
    info = build_engine(source, out / "x.engine", {"image": IMAGE})
    assert info.library == "tensorrt_rtx"


def test_full_tensorrt_builds_for_the_gpu_at_hand_only(
    graph: Callable[[onnx.ModelProto], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.13.0"))
    monkeypatch.setattr(
        "scaleport.export.tensorrt.find_device", lambda: Device(0, "some GPU", "8.9")
    )
    options = TensorRTOptions(compute_capabilities=("8.6",))
    with pytest.raises(ExportError, match=r"for the present GPU \(8\.9\), not for 8\.6"):
        build_engine(graph(conv_model()), out / "x.engine", {"image": IMAGE}, options)


def test_missing_library_says_what_to_install(
    graph: Callable[[onnx.ModelProto], Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    source = graph(conv_model())
    for options in (TensorRTOptions(), TensorRTOptions(library="tensorrt_rtx")):
        with pytest.raises(BackendError, match=r"pip install 'scaleport\[tensorrt-rtx\]'"):
            build_engine(source, out / "x.engine", {"image": IMAGE}, options)
    with pytest.raises(BackendError, match=r"pip install 'scaleport\[tensorrt\]'"):
        build_engine(source, out / "x.engine", {"image": IMAGE}, TensorRTOptions("tensorrt"))


def test_hash_covers_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "conv.onnx"
    conv_model(external=path)
    first = graph_sha256(path)
    assert graph_sha256(path) == first
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert graph_sha256(path) != first
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"weights weights\.bin of conv\.onnx are missing"):
        graph_sha256(path)


def test_engine_from_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "conv.onnx"
    conv_model(external=path)
    assert len(path.read_bytes()) < (tmp_path / "weights.bin").stat().st_size + 400
    info = build_engine(path, tmp_path / "conv.engine", {"image": IMAGE})
    assert info.onnx_sha256 == graph_sha256(path)


def test_import_is_cheap() -> None:
    code = (
        "import sys; import scaleport.export.tensorrt, scaleport.runtimes.tensorrt; "
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'cuda.bindings') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_building_prints_nothing(
    graph: Callable[[onnx.ModelProto], Path], out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    info = build_engine(graph(whole_model()), out / "w.engine", {"image": IMAGE, "size": SIZE})
    assert capfd.readouterr() == ("", "")
    assert any("Int64" in warning for warning in info.warnings)
