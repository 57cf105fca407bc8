"""Verbs that make a checkpoint or a bundle: import, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scaleport.bundle.manifest import Graph, SizeRange
from scaleport.bundle.reader import open_bundle, read_manifest
from scaleport.export.plan import ExportPlan
from scaleport.models import load_checkpoint

WIDTH, HIDDEN = 4, [6, 5]


def layer(state: dict[str, torch.Tensor], name: str, *shape: int) -> None:
    state[f"{name}.weight"] = torch.randn(shape)
    state[f"{name}.bias"] = torch.randn(shape[0])


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """``liif.pth`` with the names that LIIF's authors use; returns the number of parameters."""
    monkeypatch.chdir(tmp_path)
    state: dict[str, torch.Tensor] = {}
    layer(state, "encoder.head.0", WIDTH, 3, 3, 3)
    for name in ("encoder.body.0.body.0", "encoder.body.0.body.2", "encoder.body.1"):
        layer(state, name, WIDTH, WIDTH, 3, 3)
    sizes = [9 * WIDTH + 4, *HIDDEN, 3]
    for i in range(len(sizes) - 1):
        layer(state, f"imnet.layers.{2 * i}", sizes[i + 1], sizes[i])
    spec = {"encoder_spec": {"name": "edsr-baseline", "args": {"no_upsampling": True}}}
    torch.save({"model": {"name": "liif", "args": spec, "sd": state}}, "liif.pth")
    return sum(value.numel() for value in state.values())


def test_import_writes_a_checkpoint_that_export_can_load(run, published: int) -> None:
    ran = run("import liif.pth -o liif.safetensors --json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["parameters"] == published
    network = load_checkpoint("liif.safetensors")
    assert network.config == ran.json["model"]
    assert network.config["upsampler"]["hidden"] == HIDDEN
    assert sorted(path.name for path in Path().iterdir()) == ["liif.pth", "liif.safetensors"]


def test_import_replaces_a_checkpoint_only_when_told_to(run, published: int) -> None:
    assert run("import liif.pth -o liif.safetensors -q") == (0, "", "")
    before = Path("liif.safetensors").stat().st_mtime_ns
    refused = run("import liif.pth -o liif.safetensors")
    assert (refused.code, refused.out) == (2, "")
    assert "--overwrite" in refused.err
    assert Path("liif.safetensors").stat().st_mtime_ns == before
    ran = run("import liif.pth -o liif.safetensors --overwrite")
    assert "next: scaleport export liif.safetensors" in ran.out


def test_export_hands_its_options_on_and_writes_a_bundle_here(
    run, tiny_checkpoint, tmp_path, monkeypatch
) -> None:
    # Lowering graphs takes a minute; the README's export, which is a test as well, does it.
    def write(plan: ExportPlan) -> list[Graph]:
        plan.place("onnx/graph.onnx").write_text(str(plan.options.precisions))
        return []

    monkeypatch.setattr("scaleport.export.exporter.writer_of", lambda name: write)
    monkeypatch.chdir(tmp_path)
    options = "--format onnx --precision fp16 --height 8:64:512 --width 96"
    ran = run(f"export {tiny_checkpoint('liif')} {options} --json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["bundle"] == "tiny-liif.bundle"
    opened = open_bundle("tiny-liif.bundle", verify="all")
    assert list(opened.manifest.graphs) == ["onnx"]
    assert opened.file("onnx/graph.onnx").read_text() == "('fp16',)"
    assert opened.manifest.height == SizeRange(min=8, opt=64, max=512)
    assert opened.manifest.width == SizeRange(min=96, opt=96, max=96)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-liif.bundle"]


@pytest.fixture
def exported(tiny_bundle, tiny_checkpoint, tmp_path, monkeypatch) -> Path:
    """A checkpoint whose export takes no time: its graphs are there already."""
    manifest = read_manifest(tiny_bundle("liif"))
    monkeypatch.setattr("scaleport.export.exporter.export_bundle", lambda *_: manifest)
    monkeypatch.chdir(tmp_path)
    return tiny_checkpoint("liif")


def test_export_says_what_it_wrote_and_what_comes_next(run, exported: Path) -> None:
    ran = run(f"export {exported} -o photo.bundle")
    assert (ran.code, ran.err) == (0, "")
    assert "wrote photo.bundle: " in ran.out
    assert "next: scaleport upscale IMAGE -m photo.bundle -s 2.7" in ran.out


def test_quiet_export_prints_nothing(run, exported: Path) -> None:
    assert run(f"export {exported} -q") == (0, "", "")
