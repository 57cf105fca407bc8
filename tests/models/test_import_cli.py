from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from authors import Rcan, vary
from authors_decoders import igconv

from scaleport.cli.main import main
from scaleport.models.checkpoint import read_metadata


def run(*words: str | Path) -> int:
    try:
        return main([str(word) for word in words]) or 0
    except SystemExit as done:
        return int(done.code or 0)


def test_import_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = Rcan(6, 1, 1, 3)
    igconv(network, 6, 2, True)
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"params": vary(network).state_dict()}, source)
    assert run("import", source, "-o", target) == 0
    said = " ".join(capsys.readouterr())
    for words in (
        "recognised: RCAN-IGConv+, IGConv (dslisleedh/IGConv)",
        "scales: x2, x3, x4, x8",
        "assumed: trained on scales 2, 3, 4, 8",
        "not needed: 4 keys, mean shifts",
        "rcan(width=6",
    ):
        assert words in said
    info = read_metadata(target)["info"]
    assert info["imported_from"] == "a.pth"
    assert info["recognised"] == "RCAN-IGConv+"
    assert info["assumed"] and list(info["unused"].values()) == [4]

    assert run("import", source, "-o", target, "--scales", "2,3", "--overwrite", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"]["upsampler"]["scales"] == [2, 3]
    assert told["project"] == info["project"]
    assert not any("scales" in line for line in told["assumed"])
    assert run("import", source, "-o", target, "--overwrite", "--scales", "two") == 2
    assert run("import", source, "-o", tmp_path / "b.safetensors", "--scales", "0") == 4


def test_spandrel_must_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    source = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1)}, source)
    assert run("import", source, "-o", tmp_path / "a.safetensors", "--spandrel") == 3
    assert "scaleport[spandrel]" in capsys.readouterr().err
