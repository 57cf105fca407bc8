"""The whole graph of a network of windows: one image in, its pixels out, to the last row."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from scaleport.export.onnx import export_stage
from scaleport.export.resampling import resample_graph
from scaleport.export.whole import whole_graph
from scaleport.grid import Grid
from scaleport.models.network import build_network

CONFIG = {
    "encoder": {"name": "swinir", "width": 8, "depths": [2], "heads": 2},
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
}


@pytest.mark.networks
@torch.no_grad()
def test_whole_graph() -> None:
    torch.manual_seed(0)
    network = build_network(CONFIG).eval()
    for value in network.parameters():
        value.normal_(std=0.2)
    stages = {s.name: export_stage(s) for s in network.deploy().stages()}
    model = whole_graph("scale", stages, (2,), resample_graph(2.0))
    assert [value.name for value in model.graph.input] == ["image", "scale"]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for size, scale in (((8, 16), 2.0), ((11, 5), 2.0), ((13, 21), 1.7)):
        image = torch.rand(2, 3, *size)
        want = network(image, Grid.from_scale(*size, scale)).numpy()
        feeds = {"image": image.numpy(), "scale": np.array([scale, scale], np.float32)}
        (got,) = session.run(None, feeds)
        assert got.shape == want.shape and want.std() > 0.1
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, float(np.abs(want).max()))
