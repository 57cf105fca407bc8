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

TINY = {"name": "srformer", "width": 8, "depths": [2], "heads": 2, "window": 4}
CONFIG = {
    "encoder": TINY,
    "upsampler": {"name": "spconv", "scale": 2},
    "normalisation": {"mean": [0.4488, 0.4371, 0.404], "std": 1.0},
}


def test_published_parameter_counts() -> None:
    # The published totals of 853 272 and, with IGConv, 11 217 231 without their upsamplers.
    with torch.device("meta"):
        assert count(ENCODERS.create("srformer", {})) == 846_780
        large = {"width": 180, "depths": [6] * 6, "window": 22}
        assert count(ENCODERS.create("srformer", large)) == 10_123_596


def norm(layer: Any, x: Tensor) -> Tensor:
    mean, var = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt() * layer.weight + layer.bias


def labels(length: int, window: int, shifted: int) -> Tensor:
    """Part of the image, 0 to 2, of every row after rolling, as the published slices number it."""
    label = torch.zeros(length, dtype=torch.int64)
    label[-window:-shifted] = 1
    label[-shifted:] = 2
    return label


def attended(attention: Any, y: Tensor, window: int, shift: int) -> Tensor:
    """Permuted attention on float[H, W, C], pair by pair of a pixel and a key."""
    height, width, c = y.shape
    d, half = c // attention.heads, window // 2
    q, kv = attention.q(y), attention.kv(y)
    squares = kv.reshape(height // 2, 2, width // 2, 2, 2, c // 4)
    k, v = (squares[..., i, :].permute(0, 2, 1, 3, 4).reshape(-1, width // 2, c) for i in (0, 1))
    # The published code floors the negative of half an odd shift.
    marks = [(labels(n, window, shift), labels(n // 2, half, -(-shift // 2))) for n in y.shape[:2]]
    out = torch.zeros_like(y)
    for i in range(height):
        for j in range(width):
            top, left = i // window * half, j // window * half
            near = [(top + a, left + b) for a in range(half) for b in range(half)]
            for head in range(attention.heads):
                part = slice(head * d, (head + 1) * d)
                logits = []
                for a, b in near:
                    logit = (q[i, j, part] * k[a, b, part]).sum() / d**0.5
                    row = (i // 2 - a + half - 1) * (2 * half - 1) + (j // 2 - b + half - 1)
                    logit = logit + attention.table[row, head]
                    foreign = marks[0][0][i] != marks[0][1][a] or marks[1][0][j] != marks[1][1][b]
                    logits.append(logit - 100 * (shift > 0 and foreign))
                weights = torch.softmax(torch.stack(logits), dim=0)
                for weight, (a, b) in zip(weights, near, strict=True):
                    out[i, j, part] += weight * v[a, b, part]
    return attention.proj(out)


def published(srformer: Any, x: Tensor) -> Tensor:
    """The whole encoder on float[3, H, W], plainly: features of the continued image."""
    window = srformer.window
    beyond = (0, -x.shape[2] % window, 0, -x.shape[1] % window)
    x = functional.pad(x[None], beyond, mode="reflect")
    shallow = srformer.head(x)
    x = norm(srformer.head_norm, shallow[0].permute(1, 2, 0))
    for group in srformer.groups:
        skip = x
        for i, block in enumerate(group.blocks):
            shift = window // 2 if i % 2 else 0
            y = torch.roll(norm(block.norm1, x), (-shift, -shift), (0, 1))
            y = attended(block.attention, y, window, shift)
            x = x + torch.roll(y, (shift, shift), (0, 1))
            y = functional.gelu(block.mlp.fc1(norm(block.norm2, x)))
            near = functional.gelu(block.mlp.depthwise(y.permute(2, 0, 1)[None]))
            x = x + block.mlp.fc2(y + near[0].permute(1, 2, 0))
        x = skip + group.tail(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    x = shallow + srformer.tail(norm(srformer.norm, x).permute(2, 0, 1)[None])
    return x[0]


@pytest.mark.parametrize(("size", "window"), [((6, 5), 4), ((7, 11), 6)])
@torch.no_grad()
def test_encoder_against_a_literal_loop(size: tuple[int, int], window: int) -> None:
    # A window of 6 is shifted by 3: half a key, as with the published window of 22.
    srformer = make({**CONFIG, "encoder": {**TINY, "window": window}}).encoder.double()
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    got = srformer(srformer.padding.pad(x))
    assert got.shape == (2, 8, *(length + -length % window for length in size))
    for one, image in zip(got, x, strict=True):
        torch.testing.assert_close(one, published(srformer, image), rtol=0, atol=1e-12)


def test_deploy_form_is_the_training_form() -> None:
    check_forms({**CONFIG, "upsampler": {"name": "spconv", "scale": 4}})
    check_forms(CONFIG, scales=(2, 1.3), size=(1, 1))


@pytest.mark.networks
def test_graphs_are_the_training_form(tmp_path: Path) -> None:
    cases = (((15, 7), 1.7), ((1, 5), 2.0))
    check_onnx(CONFIG, cases=cases)
    check_coreml(CONFIG, tmp_path, cases=cases)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 62}, "multiple of heads"),
        ({"width": 66}, "multiple of 4"),
        ({"depths": [0]}, "depths"),
        ({"window": 15}, "even window"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create("srformer", options)
