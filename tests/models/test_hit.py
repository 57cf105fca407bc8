from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forms import check_coreml, check_forms, check_onnx, count, make

from scaleport.errors import UsageError
from scaleport.models import ENCODERS, build_network
from scaleport.models.correlation import Correlation
from scaleport.models.encoders.hit import FeedForward

TINY: dict[str, Any] = {"width": 32, "blocks": 1, "windows": [2, 8], "heads": 2, "base": 4}


def config(name: str, scale: int = 3, **options: Any) -> dict[str, Any]:
    return {
        "encoder": {"name": name, **TINY, **options},
        "upsampler": {"name": "spconv", "scale": scale},
        "normalisation": {"mean": [0.4488, 0.4371, 0.404]},
    }


@pytest.mark.parametrize(
    ("name", "body", "totals"),
    [
        ("hit-sir", 765_572, (772_064, 780_179, 791_540)),
        ("hit-srf", 840_452, (846_944, 855_059, 866_420)),
    ],
)
def test_published_parameter_counts(name: str, body: int, totals: tuple[int, ...]) -> None:
    assert count(ENCODERS.create(name, {})) == body
    for scale, total in zip((2, 3, 4), totals, strict=True):
        whole = {"encoder": {"name": name}, "upsampler": {"name": "spconv", "scale": scale}}
        assert build_network(whole).parameter_count() == total


def vary(module: torch.nn.Module) -> None:
    """Random weights, also where fresh ones are zeros or ones."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)


def offset_bias(correlation: Correlation, dy: int, dx: int) -> np.ndarray:
    """Position bias of one offset: float[heads]."""
    position = correlation.position
    x = position.project(torch.tensor([dy, dx], dtype=torch.float64))
    for norm, linear in zip(position.norms, position.linears, strict=True):
        x = (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-5)
        x = linear(torch.relu(x * norm.weight + norm.bias))
    return x.numpy()


def literal_window(correlation: Correlation, qv: np.ndarray) -> np.ndarray:
    """One window float[L, C] of queries and values, pair of pixels by pair of pixels."""
    w, keys, heads = correlation.window, correlation.keys, correlation.heads
    half, ratio = correlation.width // 2, w // keys
    depth = half // heads
    q, v = qv[:, :half], qv[:, half:]
    pool = correlation.pool.weight.numpy()[0]
    members = [
        [(ky * ratio + a) * w + kx * ratio + b for a in range(ratio) for b in range(ratio)]
        for ky in range(keys)
        for kx in range(keys)
    ]
    pooled = np.stack([pool @ v[of] + correlation.pool.bias.numpy() for of in members])
    out = np.zeros_like(qv)
    for token in range(w * w):
        for key, of in enumerate(members):
            offsets = [(token // w - other // w, token % w - other % w) for other in of]
            bias = np.mean([offset_bias(correlation, *offset) for offset in offsets], axis=0)
            for head in range(heads):
                part = slice(head * depth, (head + 1) * depth)
                weight = q[token, part] @ pooled[key, part] / depth + bias[head]
                out[token, part] += weight * pooled[key, part]
    for i in range(half):
        for j in range(half):
            out[:, half + i] += (q[:, i] * v[:, j]).sum() / (w * w) * v[:, j]
    return out


@pytest.mark.parametrize(("window", "base"), [(4, 2), (3, 8), (6, 2)])
@torch.no_grad()
def test_correlation_against_a_literal_loop(window: int, base: int) -> None:
    torch.manual_seed(3)
    correlation = Correlation(48, 2, window, base).double()
    vary(correlation)
    x = torch.rand(1, window + 1, window, 48, dtype=torch.float64)
    # One row too many: the rows of the second window are w, w - 1, w - 2, ...
    rows = [*range(window + 1), *range(window - 1, -1, -1)][: 2 * window]
    qv = correlation.features(x[:, rows].permute(0, 3, 1, 2))[0].permute(1, 2, 0)
    blocks = [
        literal_window(correlation, qv[top : top + window].reshape(window * window, 48).numpy())
        for top in (0, window)
    ]
    mixed = torch.from_numpy(np.concatenate(blocks)).reshape(1, 2 * window, window, 48)
    want = correlation.project(mixed)[:, : window + 1]
    torch.testing.assert_close(correlation(x), want, rtol=0, atol=1e-12)
    got = correlation.deploy()(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@torch.no_grad()
def test_published_windows_in_both_forms() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 33, 70, 60)
    for window in (4, 48, 64):
        correlation = Correlation(60, 6, window)
        want = correlation(x)
        form = correlation.deploy()
        assert form.bias.shape == (6, min(window, 8) ** 2, window**2)
        got = form(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_feed_forward_parts() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 6, 5, 4)
    hidden = {}
    for convolutional in (False, True):
        part = FeedForward(4, 2, convolutional)
        y = torch.nn.functional.gelu(x @ part.expand.weight.T + part.expand.bias)
        if part.depthwise is not None:
            around = torch.nn.functional.pad(y, (0, 0, 2, 2, 2, 2))
            taps = [
                around[:, a : a + 6, b : b + 5] * part.depthwise.weight[:, 0, a, b]
                for a in range(5)
                for b in range(5)
            ]
            added = torch.stack(taps).sum(dim=0) + part.depthwise.bias
            y = y + torch.nn.functional.gelu(added)
        hidden[convolutional] = y
        want = y @ part.reduce.weight.T + part.reduce.bias
        torch.testing.assert_close(part(x), want)
        got = part.deploy()(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["hit-sir", "hit-srf"])
def test_deploy_form_is_the_training_form(name: str) -> None:
    for size in ((13, 9), (1, 2)):
        check_forms(config(name), scales=(3, 2, 2.7, (2, 2.5)), size=size)


@pytest.mark.parametrize("name", ["hit-sir", pytest.param("hit-srf", marks=pytest.mark.networks)])
def test_onnx_graphs(name: str) -> None:
    check_onnx(config(name, windows=[8]))


@pytest.mark.networks
@pytest.mark.parametrize("name", ["hit-sir", "hit-srf"])
def test_coreml_programs(name: str, tmp_path: Path) -> None:
    check_coreml(config(name, windows=[8]), tmp_path)


def test_gradients_reach_every_weight() -> None:
    encoder = make(config("hit-srf", drop_path=0.0)).encoder.train()
    encoder(torch.rand(1, 3, 9, 7)).square().sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"windows": []}, "windows of at least 1"),
        ({"windows": [4.5]}, "windows of at least 1"),
        ({"windows": [12]}, "multiples"),
        ({"blocks": 0}, "at least 1 block"),
        ({"heads": 7}, "2 . heads"),
        ({"width": 4, "heads": 2}, "at least 5"),
        ({"mlp_ratio": 0.0}, "no hidden"),
        ({"base": 0}, "multiples"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ENCODERS.create("hit-sir", options)
