from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make

from scaleport.errors import UsageError
from scaleport.models import ENCODERS, build_network
from scaleport.models.correlation import Correlation, PositionCode, add_code

TINY: dict[str, Any] = {
    "name": "hiet",
    "width": 32,
    "blocks": 1,
    "windows": [8, 2, 8],
    "heads": 2,
    "keys": 4,
}


def config(base: str, **options: Any) -> dict[str, Any]:
    return {
        "encoder": {**TINY, "base": base, **options},
        "upsampler": {"name": "spconv", "scale": 3},
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": 0.5},
    }


@pytest.mark.parametrize(
    ("base", "body", "totals"),
    [
        ("swinir", 735_664, (742_156, 750_271, 761_632)),
        ("srformer", 798_064, (804_556, 812_671, 824_032)),
        ("mambairv2", 679_968, (685_164, 691_659, 700_752)),
    ],
)
def test_parameter_counts(base: str, body: int, totals: tuple[int, ...]) -> None:
    assert count(ENCODERS.create("hiet", {"base": base})) == body
    for scale, total in zip((2, 3, 4), totals, strict=True):
        encoder = {"name": "hiet", "base": base}
        whole = {"encoder": encoder, "upsampler": {"name": "spconv", "scale": scale}}
        assert build_network(whole).parameter_count() == total


@torch.no_grad()
def test_position_code_is_a_map_of_binary_digits() -> None:
    code = PositionCode(3, 8).double()
    assert not code.linear.weight.any()
    torch.nn.init.normal_(code.linear.weight)
    rows, cols = code.axes()
    for y, x in ((0, 0), (6, 1), (3, 4), (7, 7)):
        digits = [int(d) for d in f"{y:03b}{x:03b}"]
        want = code.linear(torch.tensor(digits, dtype=torch.float64))
        torch.testing.assert_close(rows[y] + cols[x], want)
    got = add_code(torch.zeros(1, 3, 16, 24, dtype=torch.float64), rows, cols)
    torch.testing.assert_close(got[0, :, 13, 18], rows[5] + cols[2])
    with pytest.raises(UsageError, match="powers of two"):
        PositionCode(3, 12)


@torch.no_grad()
def test_a_fresh_code_changes_nothing() -> None:
    torch.manual_seed(0)
    coded, plain = (Correlation(8, 2, 4, code=code) for code in (True, False))
    plain.load_state_dict(coded.state_dict(), strict=False)
    x = torch.rand(1, 5, 7, 8)
    assert torch.equal(coded(x), plain(x))
    torch.nn.init.normal_(coded.code.linear.weight)
    assert not torch.allclose(coded(x), plain(x))


@pytest.mark.parametrize("base", ["swinir", "mambairv2"])
@torch.no_grad()
def test_a_block_is_a_u_with_fused_skips(base: str) -> None:
    network = make(config(base, windows=[8, 4, 2, 4, 8], heads=2))
    block = network.encoder.blocks[0]
    first, second, middle, fourth, fifth = block.layers
    inner, outer = block.fuse
    x = torch.rand(1, 7, 9, 32)
    h1 = first(x)
    h2 = second(h1)
    d2 = fourth(inner(torch.cat([middle(h2), h2], dim=-1)))
    d1 = fifth(outer(torch.cat([d2, h1], dim=-1)))
    want = x + block.conv(d1.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(block(x), want)


@pytest.mark.parametrize("base", ["swinir", "srformer", "mambairv2"])
def test_deploy_form_is_the_training_form(base: str) -> None:
    for size in ((13, 9), (1, 2)):
        check_forms(config(base), scales=(3, 2, 2.7, (2, 2.5)), size=size)


SMALL = config("srformer", windows=[4, 2, 4], keys=2)


@pytest.mark.networks
def test_onnx_graphs() -> None:
    check_onnx(SMALL)


@pytest.mark.networks
def test_coreml_programs(tmp_path: Path) -> None:
    check_coreml(SMALL, tmp_path)


@pytest.mark.parametrize("base", ["swinir", "srformer", "mambairv2"])
def test_gradients_reach_every_weight(base: str) -> None:
    encoder = make(config(base, drop_path=0.0)).encoder.train()
    encoder(torch.rand(1, 3, 9, 7)).square().sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "hat"}, "no base 'hat'; known: swinir"),
        ({"windows": [8, 8]}, "odd number"),
        ({"windows": [8, 24, 8]}, "powers of two"),
        ({"windows": []}, "windows of at least 1"),
        ({"width": 50}, "2 . heads"),
        ({"drop_path": -0.5}, "drop_path"),
        ({"width": "wide"}, "hiet"),
        ({"heads": True}, "hiet"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create("hiet", options)
