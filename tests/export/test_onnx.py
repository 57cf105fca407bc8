"""ONNX stages: the lint, the check after simplification, and what stays float32."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from scaleport.errors import ExportError, LintError
from scaleport.export.onnx import check, export_stage
from scaleport.export.whole import Part, join
from scaleport.models import build_network
from scaleport.models.base import IMAGE, Stage
from scaleport.ready import READY
from scaleport.tensor import TensorSpec
from scaleport.validation.selftest import GOLDEN

FEATURE = TensorSpec("feature", "float32", ("N", 3, "H", "W"))


class BakesScale(nn.Module):
    """Looks behind the symbolic size at the number it was traced with."""

    def forward(self, image: Tensor) -> Tensor:
        width = image.shape[3]
        traced = width.node.hint if isinstance(width, torch.SymInt) else width
        return image * (2.0 / traced)


class Honest(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * torch.full((1,), image.shape[3], dtype=torch.float32)


def small(upsampler: dict[str, object], dtype: torch.dtype) -> dict[str, Stage]:
    torch.manual_seed(0)
    network = build_network(
        {"encoder": {"name": "edsr", "width": 8, "blocks": 1}, "upsampler": upsampler}
    )
    return {stage.name: stage for stage in network.deploy(dtype).stages()}


def test_lint_refuses_constant_of_the_trace() -> None:
    stage = Stage("encode", BakesScale(), (IMAGE,), (FEATURE,))
    with pytest.raises(LintError, match="'encode' depends on the size or scale"):
        export_stage(stage)


def test_lint_refuses_size_read_in_python() -> None:
    class Reads(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            # int() of a symbolic size fixes it: the tracer then refuses or the lint does.
            return image * (1.0 / int(image.shape[3]))

    with pytest.raises(ExportError, match="encode"):
        export_stage(Stage("encode", Reads(), (IMAGE,), (FEATURE,)))


def test_a_stage_that_fails_is_told_in_its_own_words() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, image: Tensor) -> Tensor:
            return self.layer(image.half()).float()

    with pytest.raises(ExportError, match=r"'encode' cannot be traced: .*Half.*should be the same"):
        export_stage(Stage("encode", Mixed(), (IMAGE,), (FEATURE,)))


def test_size_taken_from_the_graph_passes() -> None:
    model = export_stage(Stage("encode", Honest(), (IMAGE,), (FEATURE,)))
    assert [i.name for i in model.graph.input] == ["image"]


VIEWS = {"Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity"}


def readers_of_shapes(model: onnx.ModelProto) -> list[str]:
    """Operators that read the result of a Shape."""
    nodes = model.graph.node
    shapes = {node.output[0] for node in nodes if node.op_type == "Shape"}
    return [node.op_type for node in nodes if shapes & set(node.input)]


@pytest.mark.parametrize("upsampler", ["liif", "igconv"])
def test_no_length_shares_the_memory_of_a_shape(upsampler: str) -> None:
    """ONNX Runtime's WebGPU provider frees that memory while the length is still read."""
    stages = small({"name": upsampler}, torch.float32)
    readers: list[str] = []
    for name in ("prepare", "render"):
        if name in stages:
            readers += readers_of_shapes(export_stage(stages[name]))
    assert not VIEWS & set(readers)
    assert readers.count("Gather") >= 2


def test_no_length_of_a_shipped_graph_does_so() -> None:
    graphs = [*READY.rglob("*.onnx"), *GOLDEN.rglob("*.onnx")]
    assert len(graphs) >= 10
    for path in graphs:
        assert not VIEWS & set(readers_of_shapes(onnx.load(path))), path


def test_graphs_carry_no_trace_of_the_building_machine() -> None:
    model = export_stage(small({"name": "spconv", "scale": 2}, torch.float32)["encode"])
    text = model.SerializeToString()
    assert b"/site-packages/" not in text
    assert b".py" not in text
    modules = {p.value for n in model.graph.node for p in n.metadata_props if p.key == "module"}
    assert "encoder.body.0.conv1" in modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bound_render_is_one_convolution_and_one_shuffle(dtype: torch.dtype) -> None:
    igconv = export_stage(small({"name": "igconv", "latent": 16}, dtype)["render_x3"])
    spconv = export_stage(small({"name": "spconv", "scale": 3}, dtype)["render_x3"])
    for model in (igconv, spconv):
        ops = [n.op_type for n in model.graph.node if n.op_type != "Cast"]
        assert ops == ["Conv", "DepthToSpace"]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input)}
    return types | {i.name: i.data_type for i in graph.initializer}


def test_float16_render_keeps_the_grid_float32() -> None:
    model = export_stage(small({"name": "liif", "hidden": [8, 8]}, torch.float16)["render"])
    types = _types(model)
    float16, float32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    heavy = [n for n in model.graph.node if n.op_type == "MatMul"]
    assert len(heavy) >= 5
    assert all(types[n.input[0]] == types[n.input[1]] == float16 for n in heavy)
    grid = {"row_offset", "col_offset", "scale"}
    for node in model.graph.node:
        # Follow the grid forward; only a cast may leave float32.
        if grid & set(node.input):
            if node.op_type == "Cast":
                continue
            assert all(types.get(t) != float16 for t in (*node.input, *node.output)), node
            if node.op_type in {"Add", "Sub", "Mul", "Unsqueeze"}:
                grid |= {t for t in node.output if types.get(t) == float32}
    assert len(grid) > 10
    # No index is ever a float16 number: it would be wrong beyond 2048.
    for node in model.graph.node:
        if node.op_type == "Cast" and types[node.input[0]] == onnx.TensorProto.INT32:
            assert types[node.output[0]] != float16


def test_borders_are_float32_and_int32_in_every_precision() -> None:
    for stage in small({"name": "liif", "hidden": [8, 8]}, torch.float16).values():
        model = export_stage(stage)
        for value in (*model.graph.input, *model.graph.output):
            kind = value.type.tensor_type.elem_type
            assert kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32)


def test_simplification_keeps_every_weight() -> None:
    stage = small({"name": "spconv", "scale": 2}, torch.float32)["encode"]
    model = export_stage(stage)
    stored = {numpy_helper.to_array(i).tobytes() for i in model.graph.initializer}
    for name, value in stage.module.named_parameters():
        if value.numel() > 8:
            assert value.detach().numpy().tobytes() in stored, name


def test_check_names_what_is_invalid() -> None:
    node = onnx.helper.make_node("NoSuchOp", ["x"], ["y"])
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))
    with pytest.raises(ExportError, match="the test graph is not valid ONNX"):
        check(model, "the test graph")


def test_join_refuses_missing_tensors() -> None:
    model = export_stage(small({"name": "spconv", "scale": 2}, torch.float32)["render_x2"])
    info = onnx.helper.make_tensor_value_info
    image = info("image", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    with pytest.raises(ExportError, match="nothing makes 'feature'"):
        join("whole", [Part("render", model)], [image], [])


def test_export_stage_compares_with_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simplifier that changes a weight is caught."""
    import scaleport.export.onnx as module

    real = module.simplify

    def broken(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
        slim = real(model, what)
        tensor = next(i for i in slim.graph.initializer if len(i.dims) == 4)
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        return slim

    monkeypatch.setattr(module, "simplify", broken)
    with pytest.raises(ExportError, match="differs from the network at an untraced size"):
        export_stage(small({"name": "spconv", "scale": 2}, torch.float32)["encode"])
