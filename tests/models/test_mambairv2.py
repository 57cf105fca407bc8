from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_forms, check_onnx, count, make
from torch import Tensor

from scaleport.errors import UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.grid import Grid
from scaleport.models import ENCODERS, build_network, save_checkpoint
from scaleport.models import scan as scan_module
from scaleport.models.base import mirrored
from scaleport.models.encoders.mambairv2 import (
    AttentiveScan,
    GatedFeedForward,
    ShiftedAttention,
    inverted,
    picked_rows,
    places_by_class,
)
from scaleport.models.scan import selective_scan
from scaleport.models.scan_graph import scan_in_lanes

TINY: dict[str, Any] = {
    "name": "mambairv2",
    "width": 12,
    "depths": [2],
    "heads": 2,
    "window": 4,
    "states": 3,
    "rank": 4,
    "tokens": 5,
}
CONFIG: dict[str, Any] = {
    "encoder": TINY,
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404]},
}


def test_published_parameter_counts() -> None:
    assert count(ENCODERS.create("mambairv2", {})) == 768_896
    for scale, total in ((2, 774_092), (3, 780_587), (4, 789_680)):
        whole = {"encoder": {"name": "mambairv2"}, "upsampler": {"name": "spconv", "scale": scale}}
        assert build_network(whole).parameter_count() == total


def literal_scan(
    x: Tensor, delta: Tensor, decay: Tensor, drive: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    state = torch.zeros(x.shape[0], x.shape[2], decay.shape[1], dtype=x.dtype)
    out = []
    for t in range(x.shape[1]):
        step = delta[:, t, :, None]
        state = (step * decay).exp() * state + step * drive[:, t, None] * x[:, t, :, None]
        out.append((state * read[:, t, None]).sum(dim=-1) + skip * x[:, t])
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 2, 5, 16, 50])
@pytest.mark.parametrize("piece", [7, 10_000])
def test_scan_against_a_literal_recurrence(
    length: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "_TOKENS_PER_PIECE", piece)
    torch.manual_seed(length)
    n, d, s = 2, 3, 4
    x, delta = torch.randn(n, length, d).double(), torch.rand(n, length, d).double() * 3
    decay = -torch.rand(d, s).double() * 50
    drive, read = torch.randn(2, n, length, s).double()
    inputs = [x, delta, decay, drive, read, torch.randn(d).double()]
    for value in inputs:
        value.requires_grad_(True)
    got, want = selective_scan(*inputs), literal_scan(*inputs)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for one, two in zip(
        torch.autograd.grad(got.square().sum(), inputs),
        torch.autograd.grad(want.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


@torch.no_grad()
def test_attentive_scan_sorts_by_the_most_likely_class() -> None:
    torch.manual_seed(1)
    scan = AttentiveScan(6, states=3, rank=4, tokens=5, ratio=1.0).double().eval()
    scan.start()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    tokens = x.reshape(2, 20, 6)
    kinds = scan.route(tokens).argmax(dim=-1)
    assert len(set(kinds.flatten().tolist())) > 1
    u = scan.project_in(x.permute(0, 3, 1, 2))
    u = (u * torch.sigmoid(scan.gate(u))).permute(0, 2, 3, 1).reshape(2, 20, 6)
    want = torch.empty_like(tokens)
    for image in range(2):
        order = sorted(range(20), key=lambda t: (int(kinds[image, t]), t))
        prompts = (scan.prompt_classes @ scan.prompt_states)[kinds[image]]
        seen = u[image, order]
        step, drive, read = (seen @ scan.select.weight.T).split([1, 3, 3], dim=-1)
        y = literal_scan(
            seen[None],
            torch.nn.functional.softplus(scan.step(step))[None],
            -scan.log_decay.exp(),
            drive[None],
            (read + prompts)[None],
            scan.skip,
        )[0]
        want[image, order] = scan.project_out(scan.norm(y))
    torch.testing.assert_close(scan(x), want.reshape(x.shape), rtol=0, atol=1e-12)


@torch.no_grad()
def test_gated_feed_forward() -> None:
    torch.manual_seed(2)
    part = GatedFeedForward(4, 1.0).double()
    x = torch.randn(1, 5, 6, 4, dtype=torch.float64)
    y = torch.nn.functional.gelu(x @ part.expand.weight.T + part.expand.bias)
    gate = torch.nn.functional.layer_norm(y[..., 2:], (2,))
    around = torch.nn.functional.pad(gate, (0, 0, 2, 2, 2, 2))
    taps = [
        around[:, a : a + 5, b : b + 6] * part.depthwise.weight[:, 0, a, b]
        for a in range(5)
        for b in range(5)
    ]
    gate = torch.stack(taps).sum(dim=0) + part.depthwise.bias
    want = (y[..., :2] * gate) @ part.reduce.weight.T + part.reduce.bias
    torch.testing.assert_close(part(x), want)


@torch.no_grad()
def test_shifted_windows_do_not_join_opposite_borders() -> None:
    torch.manual_seed(3)
    mix = ShiftedAttention(4, 2, window=4, shift=2).double()
    x = torch.randn(2, 8, 12, 4, dtype=torch.float64)
    want = mix(x)
    changed = x.clone()
    changed[:, :2, :2] += 1
    moved = (mix(changed) - want).abs().amax(dim=(0, 3)) > 1e-6
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[:2, :2] = True  # the corner that the shift leaves is a window of its own
    assert torch.equal(moved, expected)
    changed = x.clone()
    changed[:, 3, 7] += 1
    moved = (mix(changed) - want).abs().amax(dim=(0, 3)) > 1e-6
    expected[:2, :2] = False
    expected[2:6, 6:10] = True
    assert torch.equal(moved, expected)


def test_images_are_mirrored_with_their_last_pixel_repeated() -> None:
    like = torch.zeros(1)
    assert mirrored(3, 8, like).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    assert mirrored(1, 4, like).tolist() == [0, 0, 0, 0]


@torch.no_grad()
def test_any_size_and_the_same_answer_every_time() -> None:
    network = make(CONFIG)
    for size in ((1, 1), (5, 9), (8, 4)):
        x = torch.rand(2, 3, *size)
        grid = Grid.from_scale(*size, 2)
        y = network(x, grid)
        assert tuple(y.shape) == (2, 3, *grid.output_size)
        assert torch.equal(network(x, grid), y)
    network.train()
    torch.testing.assert_close(network(x, grid).isfinite().all(), torch.tensor(True))


@torch.no_grad()
def test_pixels_are_cut_after_the_upsampler() -> None:
    network = make(CONFIG)
    x = torch.rand(1, 3, 5, 6)
    both = torch.cat([x, x.flip(2)], dim=2)[:, :, :8]
    both = torch.cat([both, both.flip(3)], dim=3)[..., :8]
    want = network(both, Grid.from_scale(8, 8, 2))[..., :10, :12]
    torch.testing.assert_close(network(x, Grid.from_scale(5, 6, 2)), want, rtol=0, atol=1e-6)


def test_deploy_form_is_the_training_form() -> None:
    check_forms(CONFIG, scales=(2, 1.7))


def test_gradients_reach_every_weight() -> None:
    encoder = make(CONFIG).encoder.train()
    encoder(torch.rand(1, 3, 12, 8)).square().sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


HIET = {"name": "hiet", "base": "mambairv2", "width": 16, "blocks": 1, "windows": [4], "heads": 2}


@pytest.mark.parametrize(("length", "lane"), [(1, 4), (4, 4), (5, 4), (50, 16), (7, 64)])
def test_scan_in_lanes_against_a_literal_recurrence(length: int, lane: int) -> None:
    torch.manual_seed(length)
    n, d, s = 2, 3, 4
    x, delta = torch.randn(n, length, d).double(), torch.rand(n, length, d).double() * 3
    decay = -torch.rand(d, s).double() * 50
    drive, read = torch.randn(2, n, length, s).double()
    inputs = (x, delta, decay, drive, read, torch.randn(d).double())
    torch.testing.assert_close(
        scan_in_lanes(*inputs, lane), literal_scan(*inputs), rtol=0, atol=1e-12
    )


def test_sorting_by_counting_is_a_stable_sort() -> None:
    torch.manual_seed(0)
    kind = torch.randint(5, (3, 200))
    kind[1] = 4
    places = places_by_class(kind, 5)
    order = inverted(places)
    assert torch.equal(order, kind.sort(dim=-1, stable=True).indices)
    x = torch.randn(3, 200, 2)
    assert torch.equal(picked_rows(picked_rows(x, order), places), x)


@torch.no_grad()
def test_deploy_form_of_hiet_is_the_training_form() -> None:
    check_forms({**CONFIG, "encoder": {**HIET, "windows": [8, 4, 8]}}, scales=(2, 1.7))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [TINY, HIET], ids=["mambairv2", "hiet"])
def test_graphs_hold_the_scan_at_any_size(encoder: dict[str, Any]) -> None:
    cases = (((15, 7), 2.0), ((1, 5), 2.0), ((23, 40), 2.0))
    worst = check_onnx({**CONFIG, "encoder": encoder}, only=("encode",), cases=cases)
    assert {name.split()[0] for name in worst} == {"onnxruntime", "openvino"}


@pytest.mark.slow
def test_formats_without_loops_are_left_out_with_a_reason(tmp_path: Path) -> None:
    save_checkpoint(make({**CONFIG, "encoder": TINY}), tmp_path / "scan.safetensors")
    options = ExportOptions(formats=("coreml", "tensorrt"), precisions=("fp32",))
    manifest = export_bundle(tmp_path / "scan.safetensors", tmp_path / "scan.bundle", options)
    assert set(manifest.graphs) == {"onnx"}
    assert {path.name for path in (tmp_path / "scan.bundle/onnx/fp32").iterdir()} >= {
        "encode.onnx",
        "whole.onnx",
    }
    assert set(manifest.skipped) == {"coreml", "tensorrt"}
    assert "takes no loop" in manifest.skipped["coreml"]
    assert "crashes" in manifest.skipped["tensorrt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depths": []}, "depths of at least 1"),
        ({"depths": [0]}, "depths of at least 1"),
        ({"window": 7}, "even window"),
        ({"heads": 5}, "heads that divide"),
        ({"mlp_ratio": 0.0}, "even number"),
        ({"states": 0}, "at least 3"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create("mambairv2", options)
