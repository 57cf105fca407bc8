"""``scaleport calibrate``, and ``validate`` of what it made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scaleport.bundle.reader import read_manifest
from scaleport.cli.options import decibels_of
from scaleport.errors import UsageError
from scaleport.imaging.files import Image, save_image
from scaleport.models import build_network, save_checkpoint
from scaleport.validation.pictures import picture


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        pixels = picture(64, 64, seed=number)[0].transpose(1, 2, 0)
        save_image(folder / f"{number}.png", Image((pixels * 255).astype(np.uint8)))
    return folder


@pytest.fixture
def exact(tmp_path):
    """A network that copies the image in float32: whatever int8 does to it is a loss."""
    torch.manual_seed(1)
    config = {
        "encoder": {"name": "edsr", "width": 8, "blocks": 1},
        "upsampler": {"name": "spconv", "scale": 1},
        "scale": {"min": 1.0, "max": 1.0},
    }
    network = build_network(config).eval()
    with torch.no_grad():
        network.upsampler.conv.bias.zero_()
        network.encoder.tail.weight.zero_()
        for layer in (network.encoder.head, network.encoder.tail, network.upsampler.conv):
            layer.bias.zero_()
        for weight in (network.encoder.head.weight, network.upsampler.conv.weight):
            weight[:3] = 0
            for colour in range(3):
                weight[colour, colour, 1, 1] = 1
    (tmp_path / "in").mkdir()
    save_checkpoint(network, tmp_path / "in/exact.safetensors")
    return tmp_path / "in/exact.safetensors"


def test_calibrate_upscale_and_validate(run, exact, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = f"calibrate {exact} --data {photos} --precision fp32 --format onnx --threads 1 "
    usual += "--patches 4 --held-out 1 "
    ran = run(usual + "-o a.bundle --max-loss 90dB --report a.json --plot a.png --json")
    assert ran.code == 0, ran.err
    assert 0 < ran.json["worst_loss"] <= 90
    assert ran.json["int8_layers"] >= len(ran.json["layers"]) / 2
    assert {p.name for p in tmp_path.iterdir()} == {"in", "photos", "a.bundle", "a.json", "a.png"}
    assert read_manifest(tmp_path / "a.bundle").quantisation is not None
    ran = run("upscale photos/0.png -m a.bundle -s 1 --precision int8 -o same.png")
    assert ran.code == 0, ran.err
    assert "int8" in ran.out
    asked = "validate a.bundle --precision int8 --data photos --threads 1 --gate-int8-loss "
    ran = run(asked + "90dB")
    assert ran.code == 0, ran.err
    assert "int8 loses at most" in ran.out
    ran = run(asked + "0.1dB --json")
    assert ran.code == 1
    assert ran.json["worst_loss"] > 0.1
    assert "int8 loses" in ran.err
    ran = run(usual + "-o b.bundle --max-loss 0.1dB --least-int8 1 --report b.json")
    assert ran.code == 1
    assert "over budget" in ran.err
    assert not (tmp_path / "b.bundle").exists()
    # What was measured is worth having all the same.
    assert (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--data nowhere", "there is no folder nowhere"),
        ("--data .", "holds no images"),
        ("--data . --max-loss lots", "decibels above 0"),
        ("--data . --max-loss 0dB", "decibels above 0"),
        ("--data . --ranges guess", "unknown range method"),
        ("--data . --format stone", "unknown format"),
        ("--data . --least-int8 0", "least fraction"),
    ],
)
def test_wrong_usage(run, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    ran = run(f"calibrate igconv-small {line}")
    assert ran.code == 2
    assert words in ran.err
    assert list(tmp_path.iterdir()) == []


def test_export_points_to_calibrate(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("export igconv-small --precision int8")
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])
    assert "use scaleport calibrate" in ran.err


def test_int8_is_validated_on_ground_truth(run, folder):
    ran = run("validate photo.bundle --precision int8")
    assert ran.code == 2
    assert "--precision int8 --data DIR" in ran.err


@pytest.mark.parametrize(("text", "value"), [("0.1dB", 0.1), ("0.25", 0.25), (" .5 DB ", 0.5)])
def test_decibels(text, value):
    assert decibels_of(text) == value


@pytest.mark.parametrize("text", ["", "-1", "0", "dB", "1 percent", "nan", "inf"])
def test_no_decibels(text):
    with pytest.raises(UsageError):
        decibels_of(text)
