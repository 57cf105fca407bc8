"""Int8 for TensorRT and Core ML: built here, run elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from calibration_samples import quantised_outputs
from onnx import numpy_helper

from scaleport.bundle.manifest import ScaleRange, SizeRange
from scaleport.bundle.reader import open_bundle
from scaleport.export.qdq import symmetric

SIZES = SizeRange(min=1, opt=64, max=256)


@pytest.mark.parametrize("stage", ["encode", "render"])
def test_engines_have_int8_layers_where_pairs_ask_for_them(tiny_int8, tmp_path, stage):
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")
    from scaleport.export.tensorrt import build_engine, profile_for

    bundle = open_bundle(tiny_int8("liif"))
    graph = bundle.graph("onnx", stage, "int8")
    model = symmetric(onnx.load(bundle.file(graph.path)))
    path = tmp_path / "graph.onnx"
    onnx.save(model, path)
    profile = profile_for(graph.inputs, SIZES, SIZES, ScaleRange(min=1, max=4))
    record = build_engine(path, tmp_path / "graph.engine", profile)
    rounded = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert rounded > 0 and quantised_outputs(model)
    # One int8 tensor per rounding, and the stored weights.
    assert record.precisions["int8"] >= rounded


def test_the_exporter_writes_the_graph_of_an_engine_beside_it(tiny_int8, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")
    from scaleport.export.plan import ExportOptions, ExportPlan
    from scaleport.export.tensorrt import graph_sha256
    from scaleport.export.write_tensorrt import _build
    from scaleport.models import load_checkpoint
    from scaleport.runtimes.engine_record import read_record

    bundle = open_bundle(tiny_int8("liif"))
    options = ExportOptions(precisions=("int8",), height=SIZES, width=SIZES)
    place = tmp_path.joinpath
    plan = ExportPlan(load_checkpoint(bundle.checkpoint()), options, place)
    (tmp_path / "tensorrt/int8").mkdir(parents=True)
    stage = next(s for s in plan.stages("int8") if s.name == "encode")
    entry = plan.stage_entry(stage, "int8", "tensorrt/int8/encode.engine")
    model = onnx.load(bundle.file(bundle.graph("onnx", "encode", "int8").path))
    (tmp_path / "scratch").mkdir()
    made = _build(plan, entry, model, tmp_path / "scratch")
    source = tmp_path / "tensorrt/int8/encode.onnx"
    assert read_record(tmp_path / made.path).onnx_sha256 == graph_sha256(source)
    zeros = [
        numpy_helper.to_array(i)
        for i in onnx.load(source).graph.initializer
        if i.name.endswith("/zero")
    ]
    assert zeros and all(z.dtype == np.int8 and not z.any() for z in zeros)


@pytest.mark.parametrize("name", ["encode", "render"])
def test_core_ml_stores_weights_as_int8_and_computes_in_float(tiny_checkpoint, tmp_path, name):
    pytest.importorskip("coremltools")
    from scaleport.export.capture import TraceSizes, example_inputs
    from scaleport.export.coreml import export_stage
    from scaleport.export.coreml_options import CoreMLOptions
    from scaleport.mil import Evaluator, read_program
    from scaleport.models import load_checkpoint

    form = load_checkpoint(tiny_checkpoint("liif")).deploy(torch.float16)
    stage = form.stage(name)
    target = tmp_path / f"{name}.mlpackage"
    export_stage(stage, target, CoreMLOptions(int8_weights=True))
    program = read_program(target)
    stored = [o for o in program.operations if o.kind == "constexpr_affine_dequantize"]
    assert stored
    assert all(np.asarray(o.inputs["quantized_data"]).dtype == np.int8 for o in stored)
    inputs = example_inputs(stage, TraceSizes())
    with torch.no_grad():
        wanted = stage.module(*inputs)
    feeds = {port.name: t.numpy() for port, t in zip(stage.inputs, inputs, strict=True)}
    found = Evaluator(program).run(feeds)[stage.outputs[0].name]
    error = np.abs(found - wanted.numpy()).max()
    assert 0 < error < 0.1 * np.abs(wanted.numpy()).max()
