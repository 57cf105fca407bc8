"""Stages captured once: what is left of the trace is found, and graphs are the exporter's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from scaleport.errors import ExportError
from scaleport.export import onnx as lowering
from scaleport.export.capture import capture, example_inputs, replays
from scaleport.export.lint import assert_same_graph
from scaleport.export.settle import settled
from scaleport.models import build_network
from scaleport.models.base import IMAGE, Stage
from scaleport.models.encoders.foreign import pad_like_spandrel
from scaleport.models.layers import crop
from scaleport.tensor import TensorSpec

FEATURE = TensorSpec("feature", "float32", ("N", 3, "H", "W"))


def stage(module: nn.Module) -> Stage:
    return Stage("encode", module, (IMAGE,), (FEATURE,))


class Traced(nn.Module):
    """Adds a number that came from the traced width, so small that no pixel changes."""

    def forward(self, image: Tensor) -> Tensor:
        width: Any = image.shape[3]
        traced = width.node.hint if isinstance(width, torch.SymInt) else width
        moved: Tensor = image + 1e-12 * traced
        return moved


class Branches(nn.Module):
    """Takes the way of wide pictures; both ways give nearly the same."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 1.5 if image.shape[3] > 64 else image * 1.5000001


class InPlace(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        x = image * 2
        x[:, 0].add_(1)
        return x


class Plain(nn.Module):
    """Operators that have to be spelled differently, or leave no trace."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([[1.0, 2, 3], [0, 1, 5], [2, 0, 1]]))

    def forward(self, image: Tensor) -> Tensor:
        mixed = (image.permute(0, 2, 3, 1) @ self.mix.T).permute(0, 3, 1, 2).contiguous()
        rest = 1 - mixed.to(torch.float16).float()
        weights = torch.tensor([0.5, 0.25, 0.125]).reshape(1, 3, 1, 1)
        return (rest * weights).reshape(image.shape[0], 3, image.shape[2], image.shape[3])


class WritesItsOwn(nn.Module):
    """Writes into what it made, reads it again, cuts channels and takes their variance."""

    def forward(self, image: Tensor) -> Tensor:
        made = image * 2 - 1
        kept = torch.nn.functional.relu_(made)
        first, rest = torch.cat([made + kept, made], dim=1).chunk(2, dim=1)
        variance = rest.permute(0, 2, 3, 1).var(-1, unbiased=False, keepdim=True)
        return first + variance.permute(0, 3, 1, 2)


class Padded(nn.Module):
    """Pads to multiples of 4, halves the sides, and may ask how lengths relate."""

    own_lengths = True

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.asks = asks

    def forward(self, image: Tensor) -> Tensor:
        n, _, height, width = image.shape
        x = pad_like_spandrel(image, 4, 4)
        if self.asks and x.shape[2] < height:
            x = -x
        high, wide = x.shape[2], x.shape[3]
        pairs = x.reshape(n, 3, high // 2, 2, wide // 2, 2)
        return crop(pairs.flip(3).reshape(n, 3, high, wide), height, width)


def test_what_the_output_does_not_show_is_found() -> None:
    program = settled(capture(stage(Traced())))
    assert program is not None
    assert not replays(program, stage(Traced()))


def test_a_branch_on_a_length_is_refused() -> None:
    with pytest.raises(ExportError, match="'encode' cannot be traced"):
        capture(stage(Branches()))


def test_a_program_of_plain_operators_replays() -> None:
    program = settled(capture(stage(Plain())))
    assert program is not None
    names = {str(node.target) for node in program.graph_module.graph.nodes}
    assert not any("assert" in name or "detach" in name for name in names)
    assert replays(program, stage(Plain()))


def test_operators_that_write_in_place_go_the_long_way() -> None:
    assert settled(capture(stage(InPlace()))) is None
    assert not lowering.trace_program(stage(InPlace()))[1]
    model = lowering.export_stage(stage(InPlace()))
    assert [value.name for value in model.graph.output] == ["feature"]


def test_operators_that_write_what_only_they_see_return_instead() -> None:
    made = stage(WritesItsOwn())
    program = settled(capture(made))
    assert program is not None and replays(program, made)
    names = {str(node.target) for node in program.graph_module.graph.nodes}
    assert "aten.relu.default" in names and "aten.chunk.default" not in names
    assert lowering.trace_program(made)[1]
    lowering.export_stage(made)


@pytest.mark.parametrize("asks", [False, True])
def test_padded_lengths_are_captured_as_symbols(
    asks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stage(Padded(asks))
    captured = capture(made)
    assert capsys.readouterr() == ("", "")
    names = {str(node.target) for node in captured.graph_module.graph.nodes}
    assert not any(name.startswith("scaleport.") for name in names)
    image = torch.rand(2, 3, 7, 9)
    torch.testing.assert_close(captured.module()(image), made.module(image), rtol=0, atol=0)
    # Where code asks about the symbol, lengths stay expressions of those of the image.
    free = "u0" in str([node.meta.get("val") for node in captured.graph_module.graph.nodes])
    assert free != asks
    lowering.export_stage(made)


def results(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs as the graph says it, unoptimised: another order could be fused otherwise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, feeds))


def both_ways(
    made: Stage, monkeypatch: pytest.MonkeyPatch
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    short, proven = lowering.trace_program(made)
    assert proven
    monkeypatch.setattr(lowering, "translation", lambda: None)
    long, proven = lowering.trace_program(made)
    assert not proven
    return lowering._proto(short, made), lowering._proto(long, made)


def test_the_short_way_gives_the_graph_of_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = both_ways(stage(Plain()), monkeypatch)
    assert_same_graph(short, long, "encode")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "upsampler"),
    [
        ({"name": "edsr", "width": 8, "blocks": 1}, {"name": "igconv-plus", "latent": 16}),
        ({"name": "edsr", "width": 8, "blocks": 1}, {"name": "ipe-liif", "hidden": [8]}),
        (
            {"name": "swinir", "width": 12, "depths": [2], "heads": 2},
            {"name": "spconv", "scale": 2},
        ),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_networks_come_out_the_same(
    encoder: dict[str, object],
    upsampler: dict[str, object],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network = build_network({"encoder": encoder, "upsampler": upsampler})
    for made in network.deploy(dtype).stages():
        with monkeypatch.context() as patch:
            short, long = both_ways(made, patch)
        # The same nodes; those that do not depend on each other may stand in another order.
        kinds = [sorted(node.op_type for node in graph.graph.node) for graph in (short, long)]
        assert kinds[0] == kinds[1]
        inputs = example_inputs(made, lowering.CHECK_SIZES)
        feeds = {p.name: t.numpy() for p, t in zip(made.inputs, inputs, strict=True)}
        for mine, theirs in zip(results(short, feeds), results(long, feeds), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_stage_that_cannot_be_captured_is_named() -> None:
    class Mixed(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image @ image.half()

    with pytest.raises(ExportError, match="'encode' cannot be traced"):
        capture(stage(Mixed()))
