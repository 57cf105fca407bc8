from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make
from torch import Tensor
from torch.nn import functional

from scaleport.errors import UsageError
from scaleport.models import ENCODERS

TINY = {"name": "swinir", "width": 8, "depths": [2], "heads": 2, "window": 4}
CONFIG = {
    "encoder": TINY,
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
}


def test_published_parameter_counts() -> None:
    # The published totals of 910 152 and 13 490 215 without their upsamplers.
    with torch.device("meta"):
        assert count(ENCODERS.create("swinir", {})) == 903_660
        assert count(ENCODERS.create("swinir", {"width": 180, "depths": [6] * 6})) == 11_499_300


def norm(layer: Any, x: Tensor) -> Tensor:
    mean, var = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt() * layer.weight + layer.bias


def labels(length: int, window: int, shift: int) -> Tensor:
    """Part of the image, 0 to 2, of every row after rolling, as the published slices number it."""
    label = torch.zeros(length, dtype=torch.int64)
    label[-window:-shift] = 1
    label[-shift:] = 2
    return label


def attended(attention: Any, y: Tensor, window: int, shift: int) -> Tensor:
    """Attention on float[H, W, C], pair by pair of pixels."""
    height, width, c = y.shape
    d = c // attention.heads
    q, k, v = attention.qkv(y).split(c, dim=-1)
    rows, cols = labels(height, window, shift), labels(width, window, shift)
    out = torch.zeros_like(y)
    for i in range(height):
        for j in range(width):
            top, left = i // window * window, j // window * window
            near = [(top + a, left + b) for a in range(window) for b in range(window)]
            for head in range(attention.heads):
                part = slice(head * d, (head + 1) * d)
                logits = []
                for a, b in near:
                    logit = (q[i, j, part] * k[a, b, part]).sum() / d**0.5
                    row = (i - a + window - 1) * (2 * window - 1) + (j - b + window - 1)
                    logit = logit + attention.table[row, head]
                    foreign = rows[i] != rows[a] or cols[j] != cols[b]
                    logits.append(logit - 100 * (shift > 0 and foreign))
                weights = torch.softmax(torch.stack(logits), dim=0)
                for weight, (a, b) in zip(weights, near, strict=True):
                    out[i, j, part] += weight * v[a, b, part]
    return attention.proj(out)


def published(swinir: Any, x: Tensor) -> Tensor:
    """The whole encoder on float[3, H, W], plainly: features of the continued image."""
    window = swinir.window
    beyond = (0, -x.shape[2] % window, 0, -x.shape[1] % window)
    x = functional.pad(x[None], beyond, mode="reflect")
    shallow = swinir.head(x)
    x = norm(swinir.head_norm, shallow[0].permute(1, 2, 0))
    for group in swinir.groups:
        skip = x
        for i, block in enumerate(group.blocks):
            shift = window // 2 if i % 2 else 0
            y = torch.roll(norm(block.norm1, x), (-shift, -shift), (0, 1))
            y = attended(block.attention, y, window, shift)
            x = x + torch.roll(y, (shift, shift), (0, 1))
            x = x + block.mlp.fc2(functional.gelu(block.mlp.fc1(norm(block.norm2, x))))
        x = skip + group.tail(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    x = shallow + swinir.tail(norm(swinir.norm, x).permute(2, 0, 1)[None])
    return x[0]


@pytest.mark.parametrize("size", [(6, 5), (4, 9)])
@torch.no_grad()
def test_encoder_against_a_literal_loop(size: tuple[int, int]) -> None:
    swinir = make(CONFIG).encoder.double()
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    got = swinir(swinir.padding.pad(x))
    assert got.shape == (2, 8, *(length + -length % 4 for length in size))
    for one, image in zip(got, x, strict=True):
        torch.testing.assert_close(one, published(swinir, image), rtol=0, atol=1e-12)


def test_deploy_form_is_the_training_form() -> None:
    check_forms({**CONFIG, "upsampler": {"name": "spconv", "scale": 4}})
    check_forms(CONFIG, scales=(2, 1.3), size=(1, 1))
    check_forms(CONFIG, scales=(2,), size=(2, 9))


@pytest.mark.networks
def test_graphs_are_the_training_form(tmp_path: Path) -> None:
    cases = (((15, 7), 1.7), ((1, 5), 2.0))
    check_onnx(CONFIG, cases=cases)
    check_coreml(CONFIG, tmp_path, cases=cases)


def test_stochastic_depth_is_for_training_only() -> None:
    encoder = ENCODERS.create(
        "swinir", {**{k: v for k, v in TINY.items() if k != "name"}, "drop_path": 0.9}
    )
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(encoder.eval()(x), encoder(x))
    encoder.train()
    assert any(not torch.equal(encoder(x), encoder(x)) for _ in range(20))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 62}, "multiple of heads"),
        ({"heads": 0}, "multiple of heads"),
        ({"depths": []}, "depths"),
        ({"depths": [6, 0]}, "depths"),
        ({"depths": [2.5]}, "depths"),
        ({"window": 1}, "window"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create("swinir", options)
