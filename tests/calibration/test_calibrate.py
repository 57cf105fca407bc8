"""The whole way: a folder of images, a budget, a bundle with int8 graphs, pictures from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from calibration_samples import SAMPLING, write_images

import scaleport
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.calibration.quantiser import CalibrationOptions, OverBudget, Quantiser
from scaleport.calibration.report import as_dict, plot, worst_loss
from scaleport.errors import ArtifactError, UsageError
from scaleport.export.exporter import export_bundle
from scaleport.export.plan import ExportOptions
from scaleport.models import build_network, save_checkpoint
from scaleport.models.compositions import COMPOSITIONS
from scaleport.validation.metrics import psnr
from scaleport.validation.pictures import picture

FAST = ExportOptions(formats=("onnx",), precisions=("fp32", "int8"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_int8_is_close_to_fp32_at_every_scale(tiny_int8, name, backend):
    bundle = tiny_int8(name)
    exact = scaleport.load(bundle, backend, "fp32")
    small = scaleport.load(bundle, backend, "int8")
    assert small.precision == "int8"
    image = picture(21, 17)
    for scale in (1.0, 2.0, 2.7, (2, 3.5)):
        a, b = small(image, scale), exact(image, scale)
        assert a.shape == b.shape
        assert 30 < psnr(a, b, float(np.ptp(b))) < 80


@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_the_whole_graph_is_int8_too(tiny_int8, name):
    upscaler = scaleport.load(tiny_int8(name), "onnxruntime", "int8")
    image = picture(12, 13)
    feeds = {"image": image, "scale": np.array([2, 2], np.float32)}
    whole = upscaler.stages.run("whole", feeds)["upscaled"]
    staged = upscaler(image, scale=2)
    assert psnr(whole, staged, float(np.ptp(staged))) > 30


@pytest.mark.parametrize("name", ["liif", "igconv"])
def test_the_manifest_says_how_it_came_about(tiny_int8, images, name):
    manifest = read_manifest(tiny_int8(name))
    record = manifest.quantisation
    assert record is not None
    assert record.images_sha256 == Quantiser(images).images.sha256
    assert (record.calibration_images, record.held_out_images) == (3, 2)
    assert (record.patches, record.seed, record.ranges) == (6, 0, "minmax")
    assert {loss.backend for loss in record.losses} == {"onnxruntime", "openvino"}
    assert worst_loss(record) <= record.max_loss
    int8 = [layer for layer in record.layers if layer.precision == "int8"]
    assert len(int8) >= len(record.layers) / 2
    for layer in record.layers:
        assert (layer.reason == "") == (layer.precision == "int8")
    plain = as_dict(record)
    assert plain["int8_layers"] == len(int8)
    graphs = open_bundle(tiny_int8(name)).graphs("onnx", None, "int8")
    assert {g.stage for g in graphs} >= {"encode", "whole"}
    assert all("int8" in g.float32_nodes for g in graphs)


def test_layers_are_listed_worst_first_and_the_curve_by_fraction(tiny_int8):
    record = read_manifest(tiny_int8("liif")).quantisation
    effects = [layer.effect for layer in record.layers if layer.effect is not None]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] > 0
    assert len({p.int8_layers for p in record.curve}) == len(record.curve) >= 3


def test_plot(tiny_int8, tmp_path):
    plot(read_manifest(tiny_int8("liif")).quantisation, tmp_path / "loss.png", "liif")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]


def test_calibrating_twice_gives_identical_bytes(tiny_checkpoint, images, tiny_int8, tmp_path):
    again = tmp_path / "again.bundle"
    settings = CalibrationOptions(max_loss=3.0, sampling=SAMPLING, threads=1)
    quantiser = Quantiser(images, settings)
    options = ExportOptions(formats=("onnx", "openvino"), precisions=("fp32", "int8"))
    export_bundle(tiny_checkpoint("liif"), again, options, quantise=quantiser)
    first = tiny_int8("liif")
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_over_budget_writes_nothing(fragile, images, tmp_path):
    target = tmp_path / "none.bundle"
    options = CalibrationOptions(max_loss=1.0, least=1.0, sampling=SAMPLING, threads=1)
    with pytest.raises(OverBudget, match=r"over budget: .* with 5 of 5 layers in int8") as caught:
        export_bundle(fragile, target, FAST, quantise=Quantiser(images, options))
    assert caught.value.exit_code == 1
    assert worst_loss(caught.value.record) > 10
    assert list(tmp_path.iterdir()) == []


def test_the_layers_that_lose_the_image_are_kept_and_no_others(fragile, images, tmp_path):
    options = CalibrationOptions(max_loss=1.0, sampling=SAMPLING, threads=1)
    bundle = tmp_path / "a.bundle"
    made = export_bundle(fragile, bundle, FAST, quantise=Quantiser(images, options)).quantisation
    kept = [layer for layer in made.layers if layer.precision == "fp32"]
    assert {layer.layer for layer in kept} == {"encoder.head", "conv"}
    assert [layer.layer for layer in made.layers[:2]] == [layer.layer for layer in kept]
    assert "number 1 of 5 by its effect" in kept[0].reason
    assert worst_loss(made) < 1
    # Everything in int8 was tried, and is on the curve.
    assert max(made.curve, key=lambda point: point.int8_layers).loss > 10
    image = picture(16, 13)
    small = scaleport.load(bundle, "onnxruntime", "int8")(image, scale=1)
    assert np.abs(small - image).max() < 0.01


def test_without_a_budget_everything_is_int8_and_nothing_measured(fragile, images, tmp_path):
    options = CalibrationOptions(max_loss=float("inf"), sampling=SAMPLING, threads=1)
    made = export_bundle(
        fragile, tmp_path / "a.bundle", FAST, quantise=Quantiser(images, options)
    ).quantisation
    assert {layer.precision for layer in made.layers} == {"int8"}
    assert made.losses == () and made.max_loss is None
    assert as_dict(made)["worst_loss"] is None


def test_images_of_one_colour_leave_nothing_behind(tiny_checkpoint, tmp_path):
    folder = write_images(tmp_path / "black", 4)
    for path in folder.iterdir():
        from scaleport.imaging.files import Image, save_image

        save_image(path, Image(np.zeros((40, 40, 3), np.uint8)))
    quantiser = Quantiser(folder, CalibrationOptions(sampling=SAMPLING, threads=1))
    with pytest.raises(UsageError, match="all of one colour"):
        export_bundle(tiny_checkpoint("liif"), tmp_path / "b.bundle", FAST, quantise=quantiser)
    assert [p.name for p in tmp_path.iterdir()] == ["black"]


def test_nan_weights(tmp_path, images, tiny_checkpoint):
    from scaleport.models import load_checkpoint

    network = load_checkpoint(tiny_checkpoint("liif"))
    with torch.no_grad():
        network.encoder.tail.weight[0, 0, 0, 0] = float("nan")
    save_checkpoint(network, tmp_path / "nan.safetensors")
    quantiser = Quantiser(images, CalibrationOptions(sampling=SAMPLING, threads=1))
    with pytest.raises(ArtifactError, match="NaN"):
        export_bundle(tmp_path / "nan.safetensors", tmp_path / "b.bundle", FAST, quantise=quantiser)
    assert [p.name for p in tmp_path.iterdir()] == ["nan.safetensors"]


def test_int8_without_images_says_what_to_do(tiny_checkpoint, tmp_path):
    with pytest.raises(UsageError, match="use scaleport calibrate"):
        export_bundle(tiny_checkpoint("liif"), tmp_path / "b.bundle", FAST)


@pytest.mark.parametrize(
    "wrong", [{"max_loss": 0}, {"max_loss": float("nan")}, {"least": 0}, {"ranges": "guess"}]
)
def test_options_are_checked(wrong):
    with pytest.raises(UsageError):
        CalibrationOptions(**wrong)


@pytest.mark.networks
@pytest.mark.parametrize(
    "name",
    [
        "edsr-baseline-hiif",
        "msit-edsr",
        "eqsr",
        "rdn-liif",
        "edsr-baseline-metasr",
        "swinir-light-igconv",
        "edsr-baseline-igconv-plus",
        "hit-srf-x2",
        "c2d-swinir-light-stage1",
    ],
)
def test_other_networks(name, images, tmp_path):
    torch.manual_seed(5)
    network = build_network(COMPOSITIONS[name].small)
    save_checkpoint(network.eval(), tmp_path / "small.safetensors")
    sampling = dataclasses.replace(SAMPLING, patches=3, largest_scale=3.0)
    options = CalibrationOptions(max_loss=20.0, sampling=sampling, threads=1)
    bundle = tmp_path / "small.bundle"
    export_bundle(tmp_path / "small.safetensors", bundle, FAST, quantise=Quantiser(images, options))
    image = picture(14, 11)
    exact = scaleport.load(bundle, "onnxruntime", "fp32")(image, scale=2)
    small = scaleport.load(bundle, "onnxruntime", "int8")(image, scale=2)
    assert 20 < psnr(small, exact, float(np.ptp(exact))) < 90
