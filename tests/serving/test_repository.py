"""Model repositories: what each server reads, and what is refused."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from scaleport.cli.main import main
from scaleport.errors import OutputError, UsageError
from scaleport.serving.repository import IMPLEMENTATION, ServeOptions, write_repository


def test_kserve_names_the_runtime_and_holds_the_bundle(tiny_bundle, tmp_path: Path) -> None:
    options = ServeOptions(name="photo", workers=3, port=9000)
    write_repository(tiny_bundle("liif", "onnx"), tmp_path / "m", "kserve", options)
    settings = json.loads((tmp_path / "m/settings.json").read_text())
    assert (settings["http_port"], settings["grpc_port"]) == (9000, 9001)
    assert (settings["metrics_port"], settings["parallel_workers"]) == (9002, 3)
    model = json.loads((tmp_path / "m/photo/model-settings.json").read_text())
    assert model["implementation"] == IMPLEMENTATION
    module, name = IMPLEMENTATION.rsplit(".", 1)
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert f"class {name}(" in source.read_text()
    assert (tmp_path / "m/photo/model.bundle/manifest.json").is_file()


def test_triton_graphs_take_what_the_configuration_says(tiny_bundle, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    bundle = tiny_bundle("liif", "onnx")
    write_repository(bundle, tmp_path, "triton", ServeOptions(name="photo"))
    feeds = {"photo": ("scale", np.float32([2.7, 3])), "photo-size": ("size", np.int64([14, 24]))}
    for model, (port, value) in feeds.items():
        config = (tmp_path / model / "config.pbtxt").read_text()
        assert f'name: "{port}"' in config
        session = ort.InferenceSession(tmp_path / model / "1/model.onnx")
        for tensor in [*session.get_inputs(), *session.get_outputs()]:
            dims = [d if isinstance(d, int) else -1 for d in tensor.shape]
            kind = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}[tensor.type]
            assert f'{{ name: "{tensor.name}" data_type: {kind} dims: {dims} }}' in config
        image = np.zeros((1, 3, 5, 8), np.float32)
        (out,) = session.run(None, {"image": image, port: value})
        assert out.shape == (1, 3, 14, 24)


def test_triton_parses_the_configuration(tiny_bundle, tmp_path: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    try:
        schema = import_module("tritonclient.grpc.model_config_pb2")
    except ImportError:
        pytest.skip("tritonclient[grpc] is not installed")
    write_repository(tiny_bundle("liif", "onnx"), tmp_path, "triton", ServeOptions())
    text = (tmp_path / "scaleport/config.pbtxt").read_text()
    config = text_format.Parse(text, schema.ModelConfig())
    assert [port.name for port in config.input] == ["image", "scale"]
    assert list(config.output[0].dims) == [-1, 3, -1, -1]


def test_ovms_serves_the_openvino_graph(tiny_bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    write_repository(tiny_bundle("liif"), tmp_path, "ovms", ServeOptions(name="photo"))
    config = json.loads((tmp_path / "config.json").read_text())
    (entry,) = config["model_config_list"]
    assert entry["config"] == {"name": "photo", "base_path": "/models/photo"}
    model = openvino.Core().compile_model(str(tmp_path / "photo/1/model.xml"), "CPU")
    feeds = {"image": np.zeros((1, 3, 5, 8), np.float32), "scale": np.float32([2, 2])}
    assert next(iter(model(feeds).values())).shape == (1, 3, 10, 16)


def test_wrong_targets_are_refused(tiny_bundle, tmp_path: Path, capsys) -> None:
    bundle = tiny_bundle("liif", "onnx")
    with pytest.raises(UsageError, match="known: kserve, triton, ovms"):
        write_repository(bundle, tmp_path / "a", "torchserve", ServeOptions())
    with pytest.raises(UsageError, match="cannot name a model"):
        write_repository(bundle, tmp_path / "a", "kserve", ServeOptions(name="../x"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(OutputError, match="not empty"):
        write_repository(bundle, tmp_path / "full", "kserve", ServeOptions())
    assert main(["serve-config", str(tmp_path / "none"), "--to", "kserve"]) == 2
    assert "none" in capsys.readouterr().err


def test_serve_says_what_is_missing(tiny_bundle, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("scaleport.cli.serve.find_spec", lambda name: None)
    assert main(["serve", str(tiny_bundle("liif", "onnx"))]) == 3
    assert "pip install 'scaleport[serve]'" in capsys.readouterr().err
