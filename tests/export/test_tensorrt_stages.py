"""Every stage becomes an engine; TensorRT-RTX builds ahead of time, so no GPU is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tensorrt_graphs import BATCH, HEIGHT, SCALE, SIZE, WIDTH, whole_model

from scaleport.bundle.manifest import ScaleRange
from scaleport.errors import ExportError
from scaleport.export.onnx import export_stage, save
from scaleport.export.tensorrt import ShapeRange, TensorRTOptions, build_engine, profile_for
from scaleport.grid import Axis
from scaleport.models.base import Stage
from scaleport.models.network import build_network
from scaleport.runtimes.engine_record import read_record
from scaleport.tensor import TensorSpec

pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx to build engines")

EDSR = {"name": "edsr", "width": 8, "blocks": 1}
SWINIR = {"name": "swinir", "width": 8, "depths": [2], "heads": 2}
IGCONV = {"name": "igconv", "scales": [2, 3], "latent": 16, "hidden_layers": 1}
NETWORKS = {
    "liif": (EDSR, {"name": "liif", "hidden": [16, 16]}),
    "liif-c": (EDSR, {"name": "liif", "hidden": [16], "cell": False, "ensemble": False}),
    "igconv": (EDSR, IGCONV),
    "swinir": (SWINIR, IGCONV),
}
STAGES = [
    ("liif", "fp32", "encode"),
    ("liif", "fp32", "render"),
    ("liif", "fp16", "encode"),
    ("liif", "fp16", "render"),
    ("liif-c", "fp32", "render"),
    ("igconv", "fp32", "prepare"),
    ("igconv", "fp32", "render"),
    ("igconv", "fp16", "render"),
    ("igconv", "fp32", "render_x2"),
    ("igconv", "fp16", "render_x2"),
    ("swinir", "fp32", "encode"),
    ("swinir", "fp16", "render"),
    ("swinir", "fp32", "render_x2"),
]


def stage_of(network: str, precision: str, name: str) -> Stage:
    torch.manual_seed(0)
    encoder, upsampler = NETWORKS[network]
    config = {"encoder": encoder, "upsampler": upsampler}
    dtype = torch.float16 if precision == "fp16" else torch.float32
    return next(s for s in build_network(config).deploy(dtype).stages() if s.name == name)


@pytest.mark.parametrize(("network", "precision", "name"), STAGES)
def test_every_stage_builds_with_its_contract(
    network: str, precision: str, name: str, tmp_path: Path
) -> None:
    stage = stage_of(network, precision, name)
    source, target = tmp_path / f"{name}.onnx", tmp_path / "engines" / f"{name}.engine"
    save(export_stage(stage), source)
    profile = profile_for(stage.inputs, HEIGHT, WIDTH, SCALE, BATCH)

    info = build_engine(source, target, profile, TensorRTOptions(library="tensorrt_rtx"))

    # Names of dynamic dimensions come from the ONNX graph; TensorRT keeps none of what it computes.
    assert info.inputs == stage.inputs
    for spec, declared in zip(info.outputs, stage.outputs, strict=True):
        assert (spec.name, spec.dtype) == (declared.name, declared.dtype)
        dynamic = [isinstance(d, str) for d in declared.shape]
        assert [isinstance(d, str) for d in spec.shape] == dynamic
        fixed = zip(spec.shape, declared.shape, strict=True)
        assert all(a == b for a, b in fixed if isinstance(b, int))
    assert info.profile == profile
    assert ("float16" in info.precisions) == (precision == "fp16")
    assert info.precisions["float32"] > 0, "the borders stay float32"
    # The plan itself, not only the record beside it, speaks of these tensors.
    plan = target.read_bytes()
    assert all(port.name.encode() in plan for port in (*stage.inputs, *stage.outputs))


def test_shape_input_of_the_whole_graph(tmp_path: Path) -> None:
    model = whole_model()
    onnx.checker.check_model(model, full_check=True)
    save(model, tmp_path / "whole.onnx")
    inputs = (
        TensorSpec(name="image", dtype="float32", shape=("N", 3, "H", "W")),
        TensorSpec(name="size", dtype="int64", shape=(2,)),
    )
    profile = profile_for(inputs, HEIGHT, WIDTH, SCALE, BATCH)
    assert profile["size"] == SIZE
    info = build_engine(tmp_path / "whole.onnx", tmp_path / "whole.engine", profile)
    assert info.profile == profile
    assert info.inputs == inputs
    assert read_record(tmp_path / "whole.engine") == info


def test_grid_arithmetic_of_the_whole_graph_is_that_of_the_grid() -> None:
    """The graph above is worth building only if its integers are right."""
    session = onnxruntime.InferenceSession(
        whole_model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    for (h, w), (ho, wo) in {(7, 5): (19, 5), (4, 9): (4, 31), (11, 6): (33, 17)}.items():
        image = rng.random((1, 3, h, w), dtype=np.float32)
        (got,) = session.run(None, {"image": image, "size": np.array([ho, wo], np.int64)})
        rows, cols = Axis.whole(h, ho), Axis.whole(w, wo)
        pixels = image[:, :, np.clip(rows.index, 0, h - 1)][..., np.clip(cols.index, 0, w - 1)]
        want = pixels * (rows.offset[:, None] + cols.offset)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_profile_follows_the_declared_ranges() -> None:
    names = {"base": ("N", "H", "W", 16), "row_index": ("Ho",), "col_offset": ("Wo",)}
    tensors = [TensorSpec(name=n, dtype="float32", shape=shape) for n, shape in names.items()]
    fixed = TensorSpec(name="scale", dtype="float32", shape=(2,))
    profile = profile_for([*tensors, fixed], HEIGHT, WIDTH, ScaleRange(min=1.5, max=3.3), BATCH)
    assert profile == {
        "base": ShapeRange(min=(1, 4, 5, 16), opt=(1, 24, 32, 16), max=(2, 96, 128, 16)),
        "row_index": ShapeRange(min=(1,), opt=(48,), max=(317,)),
        "col_offset": ShapeRange(min=(1,), opt=(64,), max=(422,)),
    }


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (ScaleRange(min=1, max=8, native=(3, 4)), (3, 3, 4)),
        (ScaleRange(min=1.5, max=3.3), (1, 2, 4)),
        (ScaleRange(min=0.5, max=0.75), (1, 1, 1)),
        (ScaleRange(min=5, max=6), (5, 5, 6)),
    ],
)
def test_profile_of_integer_scales(scale: ScaleRange, expected: tuple[int, int, int]) -> None:
    tensor = TensorSpec(name="subpixel", dtype="float32", shape=("S",))
    low, usual, high = expected
    assert profile_for([tensor], HEIGHT, WIDTH, scale) == {
        "subpixel": ShapeRange(min=(low,), opt=(usual,), max=(high,))
    }


def test_engines_take_two_images_by_default() -> None:
    image = TensorSpec(name="image", dtype="float32", shape=("N", 3, "H", "W"))
    found = profile_for([image], HEIGHT, WIDTH, SCALE)["image"]
    assert (found.min[0], found.opt[0], found.max[0]) == (1, 1, 2)


def test_profile_refuses_a_dimension_of_unknown_range() -> None:
    tensor = TensorSpec(name="tokens", dtype="float32", shape=("N", "T", 8))
    with pytest.raises(ExportError, match=r"'tokens' has a dimension 'T'"):
        profile_for([tensor], HEIGHT, WIDTH, SCALE)
