"""What a file cannot say: ablations, scales beyond training, and options that are set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import BasicEdsr, Edsr, tree, vary
from authors_decoders import igconv, liif
from authors_windowed import HiT, Windowed
from published import PUBLISHED
from torch import Tensor
from torch.nn import functional

from scaleport.cli.main import main
from scaleport.errors import UsageError
from scaleport.grid import Grid
from scaleport.models import load_checkpoint, save_checkpoint
from scaleport.models.importers import Imported, import_file
from scaleport.models.importers.settings import setting_of, settings_of


def bring(tmp_path: Path, content: Any, **options: Any) -> Imported:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return import_file(path, **options)


def igconv_file(tmp_path: Path) -> dict[str, Tensor]:
    network = BasicEdsr(4, 2)
    igconv(network, 4, 2, False)
    state: dict[str, Tensor] = vary(network).state_dict()
    return state


def liif_file(**args: Any) -> dict[str, Any]:
    network = tree(encoder=Edsr(4, 1))
    switches = {"cell": args.get("cell_decode", True), "unfold": args.get("feat_unfold", True)}
    liif(network, 4, 8, 2, **switches)
    return {"model": {"name": "liif", "args": args, "sd": vary(network).state_dict()}}


def test_max_s_stays_what_it_was_trained_with(tmp_path: Path) -> None:
    state = igconv_file(tmp_path)
    plain = bring(tmp_path, state)
    more = bring(tmp_path, state, scales=(2, 3, 4, 8))
    assert more.network.upsampler.native_scales == (2, 3, 4, 8)
    assert more.network.limits.max == 8
    for found in (plain, more):
        assert found.network.config["upsampler"]["max_s"] == 4
        assert any("max_s" in line for line in found.assumed)
    image = torch.rand(1, 3, 4, 5)
    grid = Grid.from_scale(4, 5, 4)
    assert torch.equal(more.network(image, grid), plain.network(image, grid))

    moved = bring(tmp_path, state, scales=(2, 3, 4, 8), settings={"upsampler.max_s": 8})
    assert moved.network.upsampler.max_s == 8
    assert not any("max_s" in line for line in moved.assumed)
    assert torch.equal(moved.network(image, grid), plain.network(image, grid))
    grid = Grid.from_scale(4, 5, 8)
    assert not torch.allclose(moved.network(image, grid), more.network(image, grid))


def test_settings_go_with_wrapped_and_prefixed_files(tmp_path: Path) -> None:
    state = igconv_file(tmp_path)
    wrapped = {"iteration": 5, "net_g": {f"_orig_mod.net.{k}": v for k, v in state.items()}}
    settings = {"encoder.residual_scale": 0.1}
    found = bring(tmp_path, wrapped, settings=settings)
    assert found.given == settings
    want = bring(tmp_path, state, settings=settings).network
    image, grid = torch.rand(1, 3, 4, 5), Grid.from_scale(4, 5, 2)
    assert torch.equal(found.network(image, grid), want(image, grid))
    plain = bring(tmp_path, wrapped).network
    assert not torch.allclose(plain(image, grid), want(image, grid))


def test_a_residual_scale_reaches_the_network(tmp_path: Path) -> None:
    network = BasicEdsr(4, 2)
    igconv(network, 4, 2, False)
    state = vary(network).state_dict()
    found = bring(tmp_path, state, settings={"encoder.residual_scale": 0.1})
    assert found.given == {"encoder.residual_scale": 0.1}
    assert found.info()["set"] == found.given
    assert not any("residual" in line for line in found.assumed)
    x = torch.rand(1, 3, 5, 4)
    head = network.conv_first(x - network.mean)
    y: Any = head
    for block in network.body:
        y = y + 0.1 * block.conv2(functional.relu(block.conv1(y)))
    want = head + network.conv_after_body(y)
    torch.testing.assert_close(found.network.encode(x)["feature"], want, rtol=1e-5, atol=1e-5)


def test_any_part_can_be_set(tmp_path: Path) -> None:
    settings = {
        "normalisation.mean": [0.5, 0.5, 0.5],
        "normalisation.std": 0.5,
        "scale.max": 3,
        "upsampler.scales": [2, 3],
    }
    found = bring(tmp_path, igconv_file(tmp_path), settings=settings)
    network = found.network
    assert network.config["normalisation"] == {"mean": [0.5] * 3, "std": 0.5}
    assert network.limits.max == 3 and network.upsampler.native_scales == (2, 3)
    assert not any("normalisation" in line or "scales" in line for line in found.assumed)
    save_checkpoint(network, tmp_path / "a.safetensors", found.info())
    assert load_checkpoint(tmp_path / "a.safetensors").config == network.config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder.width": 8}, "--set encoder.width=8 does not fit the weights: .* instead of"),
        ({"encoder.blocks": 3}, "does not fit the weights: .*missing are"),
        ({"encoder.blocks": 1}, "does not fit the weights: .*no place for"),
        ({"encoder.residual": 1}, "has no option residual; known: .*residual_scale"),
        ({"encoder.residual_scale": "much"}, "residual_scale must be a finite number"),
        ({"encoder.name": "rdn"}, "PART.OPTION=VALUE"),
        ({"head.width": 1}, "encoder, upsampler, normalisation, scale"),
        ({"normalisation.std": 0}, "positive std"),
        ({"scale.least": 1}, "scale settings"),
    ],
)
def test_settings_are_checked_against_the_weights(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        bring(tmp_path, igconv_file(tmp_path), settings=settings)


def test_windows_and_heads(tmp_path: Path) -> None:
    network = Windowed(8, [2], 2, 4, 8, 1)
    igconv(network, 8, 2, False)
    state = vary(network).state_dict()
    for name, value in (("window", 8), ("heads", 4)):
        with pytest.raises(UsageError, match="does not fit the weights"):
            bring(tmp_path, state, settings={f"encoder.{name}": value})
    bring(tmp_path, state, settings={"encoder.window": 4})

    hit = HiT(20, 1, [2, 4, 8], 2, False)
    igconv(hit, 20, 2, False)
    state = vary(hit).state_dict()
    found = bring(tmp_path, state, settings={"encoder.windows": [4, 4, 8]})
    assert found.network.config["encoder"]["windows"] == [4, 4, 8]
    assert not any("windows" in line for line in found.assumed)
    with pytest.raises(UsageError, match="does not fit the weights"):
        bring(tmp_path, state, settings={"encoder.windows": [4, 8, 16]})


def test_what_the_file_says_stays(tmp_path: Path) -> None:
    network = Edsr(4, 1, (2,))
    state = vary(network).state_dict()
    with pytest.raises(UsageError, match=r"normalisation\.std: the file itself says"):
        bring(tmp_path, state, settings={"normalisation.std": 1})
    file = liif_file(local_ensemble=False)
    with pytest.raises(UsageError, match=r"upsampler\.ensemble: the file itself says false"):
        bring(tmp_path, file, settings={"upsampler.ensemble": True})
    bring(tmp_path, file, settings={"upsampler.ensemble": False})


def test_ablations_of_liif(tmp_path: Path) -> None:
    for args, title in (
        ({}, "EDSR-LIIF"),
        ({"local_ensemble": True}, "EDSR-LIIF"),
        ({"local_ensemble": False}, "EDSR-LIIF without local ensemble"),
        ({"feat_unfold": False}, "EDSR-LIIF without feature unfolding"),
        (
            {"feat_unfold": False, "cell_decode": False, "local_ensemble": False},
            "EDSR-LIIF without local ensemble, feature unfolding, cell decoding",
        ),
    ):
        found = bring(tmp_path, liif_file(**args))
        assert found.title == title
        assert any("local ensemble" in line for line in found.assumed) == (
            "local_ensemble" not in args
        )
    # A file of weights alone does not say that the ensemble is left out; its owner can.
    content = liif_file()["model"]["sd"]
    found = bring(tmp_path, content, settings={"upsampler.ensemble": False})
    assert found.network.upsampler.ensemble is False
    assert not any("ensemble" in line for line in found.assumed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("encoder.residual_scale=0.1", 0.1),
        ("encoder.residual_scale = 1", 1),
        ("upsampler.ensemble=false", False),
        ("encoder.padding=test-script", "test-script"),
        ("normalisation.mean=0.5, 0.4,0.3", [0.5, 0.4, 0.3]),
        ("encoder.windows=[4, 8]", [4, 8]),
    ],
)
def test_values_of_settings(text: str, value: Any) -> None:
    assert setting_of(text) == (text.partition("=")[0].strip(), value)


@pytest.mark.parametrize("text", ["", "residual_scale=1", "encoder.residual_scale", "encoder.a="])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(UsageError, match=r"PART\.OPTION=VALUE"):
        setting_of(text)


def test_a_setting_is_given_once() -> None:
    assert settings_of(["encoder.a=1", "encoder.b=2"]) == {"encoder.a": 1, "encoder.b": 2}
    with pytest.raises(UsageError, match="given twice"):
        settings_of(["encoder.a=1", "encoder.a=2"])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save(igconv_file(tmp_path), source)

    def run(*words: str) -> int:
        try:
            given = [str(source), "-o", str(target), "--overwrite", *words]
            return main(["import", *given]) or 0
        except SystemExit as done:
            return int(done.code or 0)

    assert run("--set", "encoder.residual_scale=0.1", "--set", "normalisation.std=0.5") == 0
    said = " ".join(capsys.readouterr())
    assert "set: encoder.residual_scale = 0.1" in said
    assert "assumed: residual" not in said and "assumed: normalisation" not in said
    assert load_checkpoint(target).config["normalisation"]["std"] == 0.5
    assert run("--set", "upsampler.max_s=8", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["set"] == {"upsampler.max_s": 8}
    assert told["model"]["upsampler"]["max_s"] == 8
    assert run("--set", "encoder.width=3") == 2
    assert "does not fit the weights" in capsys.readouterr().err
    assert run("--scales", "2,3", "--set", "upsampler.scales=2") == 2


def test_padding_is_set_by_name(tmp_path: Path) -> None:
    make: Callable[[Path], Any] = PUBLISHED["swinir-x2-test-script"].make
    network, _ = make(tmp_path)
    assert network.encoder.padding.kind == "test-script"
    with pytest.raises(UsageError, match="padding must be one of reflect, mirror, test-script"):
        import_file(tmp_path / "weights.pth", settings={"encoder.padding": "zeros"})
