"""Exporting: what is skipped and why, what ends the export, what the manifest says."""

from __future__ import annotations

import pytest
import torch

from scaleport.bundle.manifest import Graph, SizeRange
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.errors import (
    ArtifactError,
    BackendError,
    ExportError,
    UnsupportedOpError,
    UsageError,
)
from scaleport.export.exporter import export_bundle
from scaleport.export.formats import FORMATS, writer_of
from scaleport.export.plan import ExportOptions, ExportPlan
from scaleport.models import build_network, save_checkpoint

ENCODER = {"name": "edsr", "width": 4, "blocks": 1}


def network(upsampler):
    torch.manual_seed(2)
    return build_network({"encoder": ENCODER, "upsampler": upsampler}).eval()


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(network({"name": "spconv", "scale": 2}), path)
    return path


@pytest.fixture
def writers(monkeypatch):
    """Function that replaces the writer of a format: by files, or by an error."""

    def replace(name, error=None):
        def write(plan):
            if error is not None:
                raise error
            plan.step(f"writing {name}")
            stage = plan.stages("fp32")[0]
            path = f"{name}/fp32/{stage.name}.bin"
            plan.place(path).write_bytes(b"graph")
            return [plan.stage_entry(stage, "fp32", path)]

        monkeypatch.setattr(f"{FORMATS[name]}.write", write)

    return replace


def test_a_format_without_its_tools_is_skipped_with_the_reason(checkpoint, tmp_path, writers):
    writers("onnx")
    writers("openvino", BackendError("openvino is not installed: pip install it"))
    writers("coreml")
    options = ExportOptions(formats=("openvino", "coreml"))
    manifest = export_bundle(checkpoint, tmp_path / "m.bundle", options)
    assert manifest.skipped == {"openvino": "openvino is not installed: pip install it"}
    assert set(manifest.graphs) == {"onnx", "coreml"}
    # The stand-in writers make no graphs, so files are not looked into.
    assert read_manifest(tmp_path / "m.bundle") == manifest


def test_a_format_that_cannot_be_proven_is_skipped_with_the_reason(
    checkpoint, tmp_path, writers, monkeypatch
):
    def write(plan: ExportPlan) -> list[Graph]:
        plan.place("coreml/fp32/encode.mlpackage").mkdir(parents=True)
        plan.place("coreml/fp32/encode.mlpackage/weights.bin").write_bytes(b"0")
        raise UnsupportedOpError("the MIL evaluator does not know real_div")

    writers("onnx")
    monkeypatch.setattr(f"{FORMATS['coreml']}.write", write)
    options = ExportOptions(formats=("coreml",))
    manifest = export_bundle(checkpoint, tmp_path / "m.bundle", options)
    reason = "not proven to be equal: the MIL evaluator does not know real_div"
    assert manifest.skipped == {"coreml": reason}
    assert not any(name.startswith("coreml") for name in manifest.files)
    assert not (tmp_path / "m.bundle/coreml").exists()


def test_a_refused_graph_ends_the_export_and_leaves_nothing(checkpoint, tmp_path, writers):
    writers("onnx")
    writers("openvino", ExportError("OpenVINO refuses graph 'render'"))
    with pytest.raises(ExportError, match="refuses graph 'render'"):
        export_bundle(checkpoint, tmp_path / "m.bundle", ExportOptions(formats=("openvino",)))
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_onnx_always_ships(checkpoint, tmp_path, writers):
    writers("onnx")
    writers("coreml")
    steps = []
    options = ExportOptions(formats=("coreml",))
    manifest = export_bundle(
        checkpoint, tmp_path / "m.bundle", options, lambda done, total, text: steps.append(text)
    )
    assert list(manifest.graphs) == ["onnx", "coreml"]
    assert steps.index("writing onnx") < steps.index("writing coreml")


@pytest.mark.parametrize("formats", [("onnx", "tflite"), ()])
def test_unknown_format(checkpoint, tmp_path, formats):
    with pytest.raises(UsageError, match="known: onnx, openvino, tensorrt, coreml"):
        export_bundle(checkpoint, tmp_path / "m.bundle", ExportOptions(formats=formats))
    with pytest.raises(UsageError, match="unknown format 'tflite'"):
        writer_of("tflite")


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_has_a_writer(name):
    assert callable(writer_of(name))


def test_manifest_describes_the_network(checkpoint, tmp_path, writers):
    writers("onnx")
    height = SizeRange(min=8, opt=16, max=64)
    options = ExportOptions(formats=("onnx",), height=height)
    manifest = export_bundle(checkpoint, tmp_path / "m.bundle", options)
    net = network({"name": "spconv", "scale": 2})
    assert (manifest.name, manifest.family) == ("small", "lattice")
    assert manifest.parameters == sum(p.numel() for p in net.parameters())
    assert (manifest.scale.min, manifest.scale.max, manifest.scale.native) == (1.0, 2.0, (2,))
    assert manifest.receptive_field == 5
    assert (manifest.height, manifest.width.opt) == (height, 256)
    assert manifest.tool_versions["torch"] == torch.__version__
    copied = (tmp_path / "m.bundle" / "model.safetensors").read_bytes()
    assert copied == checkpoint.read_bytes()


def test_the_licence_is_what_was_given_or_said_or_that_of_the_package(
    checkpoint, tmp_path, writers, monkeypatch
):
    writers("onnx")

    def licence(source, **options):
        target = tmp_path / "licensed.bundle"
        options = ExportOptions(formats=("onnx",), overwrite=True, **options)
        return export_bundle(source, target, options).license

    assert licence(checkpoint) == ""
    assert licence(checkpoint, license="CC0-1.0") == "CC0-1.0"
    said = tmp_path / "said.safetensors"
    save_checkpoint(network({"name": "spconv", "scale": 2}), said, {"license": "CC-BY-4.0"})
    assert licence(said) == "CC-BY-4.0"
    assert licence(said, license="CC0-1.0") == "CC0-1.0"
    monkeypatch.setattr("scaleport.shipped.shipped_weights", lambda: {"small": checkpoint})
    assert licence(checkpoint) == "Apache-2.0"


def test_damaged_checkpoint_leaves_nothing(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"noise")
    with pytest.raises(ArtifactError, match=r"bad\.safetensors"):
        export_bundle(path, tmp_path / "m.bundle")
    assert not (tmp_path / "m.bundle").exists()


def test_existing_bundle_is_replaced_only_when_asked(checkpoint, tmp_path, writers):
    writers("onnx")
    target = tmp_path / "m.bundle"
    export_bundle(checkpoint, target, ExportOptions(formats=("onnx",)))
    with pytest.raises(UsageError):
        export_bundle(checkpoint, target, ExportOptions(formats=("onnx",)))
    options = ExportOptions(formats=("onnx",), precisions=("fp16",), overwrite=True)
    export_bundle(checkpoint, target, options)
    assert open_bundle(target).manifest.graphs["onnx"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precisions": ("fp32", "int4")}, "int4"),
        ({"precisions": ()}, "none"),
        ({"height": SizeRange(min=9, opt=8, max=16)}, "min <= opt <= max"),
        ({"width": SizeRange(min=1, opt=17, max=16)}, "min <= opt <= max"),
    ],
)
def test_options_are_checked(changes, words):
    with pytest.raises(UsageError, match=words):
        ExportOptions(**changes)


def plan(upsampler, **options):
    return ExportPlan(network(upsampler), ExportOptions(**options), lambda p: p)


IGCONV = {"name": "igconv", "latent": 16, "hidden_layers": 2}


@pytest.mark.parametrize(
    ("frozen", "names"),
    [
        (None, {"render_x2", "render_x3", "render_x4"}),
        ((3,), {"render_x3"}),
        ((), set()),
    ],
)
def test_frozen_scales(frozen, names):
    stages = {stage.name for stage in plan(IGCONV, freeze_scales=frozen).stages("fp32")}
    assert stages == {"prepare", "encode", "render"} | names


def test_only_native_scales_can_be_frozen():
    with pytest.raises(UsageError, match=r"cannot freeze scale 5, 6; native .*: 2, 3, 4"):
        plan(IGCONV, freeze_scales=(2, 6, 5))
    with pytest.raises(UsageError, match="native scales of this model: none"):
        plan({"name": "liif", "hidden": [8]}, freeze_scales=(2,))


def test_a_network_without_a_general_stage_keeps_its_only_one():
    stages = plan({"name": "spconv", "scale": 2}, freeze_scales=()).stages("fp32")
    assert {stage.name for stage in stages} == {"encode", "render_x2"}


def test_entries_say_what_stays_float32():
    made = plan({"name": "liif", "hidden": [8]})
    render = next(stage for stage in made.stages("fp16") if stage.name == "render")
    entry = made.stage_entry(render, "fp16", "onnx/fp16/render.onnx")
    assert isinstance(entry, Graph)
    assert "relative coordinates" in entry.float32_nodes
    assert made.stage_entry(render, "fp32", "x.onnx").float32_nodes == ""
    whole = made.whole_entry("whole_size", "fp16", "w.onnx")
    assert "the grid" in whole.float32_nodes
    assert [(t.name, t.dtype) for t in whole.inputs] == [("image", "float32"), ("size", "int64")]
