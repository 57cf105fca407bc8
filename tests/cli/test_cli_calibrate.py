"""``scaleport calibrate``, and ``validate`` of what it made."""

from __future__ import annotations

import numpy as np
import pytest

from scaleport.bundle.reader import read_manifest
from scaleport.cli.parse import decibels_of
from scaleport.errors import UsageError
from scaleport.imaging.files import Image, save_image
from scaleport.validation.pictures import picture


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        pixels = picture(64, 64, seed=number)[0].transpose(1, 2, 0)
        save_image(folder / f"{number}.png", Image((pixels * 255).astype(np.uint8)))
    return folder


def test_calibrate_upscale_and_validate(run, tiny_checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tiny_checkpoint("liif")
    ran = run(
        f"calibrate {source} --data {photos} -o a.bundle --max-loss 3dB --patches 4 --held-out 1 "
        "--precision fp32 --format onnx --threads 1 --report a.json --plot a.png --json"
    )
    assert ran.code == 0, ran.err
    assert ran.json["worst_loss"] <= 3
    assert ran.json["int8_layers"] >= len(ran.json["layers"]) / 2
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "a.bundle", "a.json", "a.png"}
    assert read_manifest(tmp_path / "a.bundle").quantisation is not None
    ran = run("upscale photos/0.png -m a.bundle -s 2 --precision int8 -o big.png")
    assert ran.code == 0, ran.err
    assert "int8" in ran.out
    ran = run("validate a.bundle --precision int8 --data photos --gate-int8-loss 5dB --threads 1")
    assert ran.code == 0, ran.err
    assert "int8 loses at most" in ran.out
    ran = run("validate a.bundle --precision int8 --data photos --gate-int8-loss 1e-9 --json")
    assert ran.code == 1
    assert "int8 loses" in ran.err
    ran = run(
        f"calibrate {source} --data {photos} -o b.bundle --max-loss 1e-9 --least-int8 1 "
        "--patches 2 --held-out 1 --precision fp32 --format onnx --threads 1"
    )
    assert ran.code == 1
    assert "over budget" in ran.err
    assert not (tmp_path / "b.bundle").exists()


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
