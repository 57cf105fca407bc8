"""Int8 graphs of one fixed shape: quantise and dequantise nodes, and nothing dynamic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from calibration_samples import SAMPLING

from scaleport.bundle.reader import open_bundle
from scaleport.calibration.quantiser import CalibrationOptions, Quantiser
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.export.static import StaticShape, dynamic_part
from scaleport.runtimes.upscaler import load
from scaleport.validation.pictures import pictures


def test_int8_of_fixed_shape(tiny_checkpoint, images, tmp_path: Path) -> None:
    target = tmp_path / "int8.bundle"
    settings = CalibrationOptions(max_loss=float("inf"), sampling=SAMPLING, threads=1)
    options = ExportOptions(
        formats=("onnx",), precisions=("fp32", "int8"), static=StaticShape(40, 48)
    )
    export_bundle(tiny_checkpoint("liif"), target, options, quantise=Quantiser(images, settings))
    bundle = open_bundle(target)
    graphs = {graph.stage: graph for graph in bundle.graphs("onnx", None, "int8")}
    assert set(graphs) == {"encode", "encode_small", "render", "whole_x2"}
    for stage, graph in graphs.items():
        model = onnx.load(bundle.file(graph.path))
        assert dynamic_part(model) == ""
        kinds = {node.op_type for node in model.graph.node}
        # Pictures smaller than the shape are rare: their encoder stays float.
        assert ({"QuantizeLinear", "DequantizeLinear"} <= kinds) == (stage != "encode_small")
        assert not kinds & {"QLinearConv", "ConvInteger", "DynamicQuantizeLinear"}
    # Rounding to 8 bits costs about as much in tiles as in one piece.
    image = pictures(70, 90, 1)
    want, got = (load(bundle, "onnxruntime", p)(image, 2.7) for p in ("fp32", "int8"))
    assert 0 < np.abs(want - got).mean() < 0.05
