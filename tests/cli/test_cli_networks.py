"""``inspect --models`` and ``inspect NETWORK``."""

from __future__ import annotations

import msgspec
import pytest
import yaml

from scaleport.catalogue import FAMILIES, catalogue
from scaleport.cli.networks import short, show_network
from scaleport.cli.output import Output


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch):
    def set_to(count: int) -> None:
        monkeypatch.setenv("COLUMNS", str(count))

    return set_to


@pytest.mark.parametrize("width", [80, 100, 120])
def test_listing_fits_the_terminal(run, columns, width: int) -> None:
    columns(width)
    ran = run("inspect --models")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= width
    listed = lines[: lines.index("encoders and their options")]
    names = [line.split()[0] for line in listed if line.strip()]
    for entry in catalogue().networks:
        assert names.count(entry.name) == 1
    for family in FAMILIES:
        assert sum(line.startswith(f"{family}: ") for line in lines) == 1


def test_listing_is_complete_as_json(run) -> None:
    found = run("inspect --models --json").json
    assert [network["name"] for network in found["networks"]] == [
        entry.name for entry in catalogue().networks
    ]
    by_name = {network["name"]: network for network in found["networks"]}
    liif, mamba = by_name["edsr-baseline-liif"], by_name["mambairv2-light-x2"]
    assert liif["paper"] == "2012.09161" and liif["parameters"] == 1_567_299
    assert liif["formats"] == ["onnx", "openvino", "tensorrt", "coreml"]
    assert {"torch", "onnxruntime", "openvino"} <= set(liif["backends"])
    assert mamba["formats"] == ["onnx", "openvino"] and mamba["refusal"] == ""
    assert "coreml" not in mamba["backends"] and "onnxruntime" in mamba["backends"]
    assert "selective scan" in mamba["refused_formats"]["coreml"]
    assert by_name["eqsr"]["tiling"]["kind"] == "not-allowed"
    assert found["formats"]["onnx"] == ["onnxruntime"]


def test_a_pattern_lists_a_few(run) -> None:
    ran = run("inspect --models c2d-*-x2")
    names = [word for word in ran.out.split() if word.startswith("c2d-")]
    assert names == [f"c2d-{base}-light-x2" for base in ("swinir", "srformer", "mambairv2")]
    assert "encoders and their options" not in ran.out
    found = run("inspect --models eqsr --json").json
    assert [network["name"] for network in found["networks"]] == ["eqsr"]
    ran = run("inspect --models nothing-*")
    assert (ran.code, ran.out) == (2, "")
    assert "no network is named nothing-*" in ran.err


def test_one_network_with_a_configuration_that_builds_it(run) -> None:
    from scaleport.models import build_network

    ran = run("inspect rdn-ipe-liif")
    assert ran.out.startswith("rdn-ipe-liif: rdn + ipe-liif, ")
    assert "arXiv 2112.05756" in ran.out
    recipe = yaml.safe_load("model:" + ran.out.partition("\nmodel:")[2])
    assert recipe["model"] == catalogue().find("rdn-ipe-liif").config
    network = build_network(recipe["model"])
    assert f"{network.parameter_count():,} parameters" in ran.out
    found = run("inspect rdn-ipe-liif --json").json
    assert (found["kind"], found["config"]) == ("network", recipe["model"])


def test_a_format_that_cannot_hold_a_network_is_said_with_the_reason(run, columns) -> None:
    columns(120)
    out = " ".join(run("inspect c2d-mambairv2-light-x4").out.split())
    formats = "onnx, openvino; not to tensorrt or coreml: a selective scan is a recurrence"
    assert f"exports to {formats}" in out
    runs_on = out.partition("runs on ")[2].partition(" deploy form")[0].split(", ")
    assert {"onnxruntime", "openvino", "torch"} <= set(runs_on)
    assert not {"coreml", "tensorrt"} & set(runs_on)


def test_a_network_that_is_not_exported_says_why(columns, capsys) -> None:
    columns(120)
    entry = catalogue().find("c2d-mambairv2-light-x4")
    assert entry is not None
    refused = msgspec.structs.replace(entry, refusal="its loops have no end", refused_formats={})
    show_network(Output(), refused)
    out = capsys.readouterr().out
    assert "exports to   nothing: its loops have no end" in out
    assert "runs on      PyTorch, in Python only" in out


def test_a_near_miss_is_told_what_there_is(run) -> None:
    ran = run("inspect edsr-baseline-lif")
    assert ran.code == 2
    assert "edsr-baseline-liif" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("name", ["liif", "hit-srf"])
def test_a_part_of_networks_is_called_that(run, name: str) -> None:
    ran = run(f"inspect {name}")
    assert (ran.code, ran.out) == (2, "")
    assert f"{name} is a part, not a network; scaleport inspect --models" in ran.err


def test_a_file_goes_before_a_network(run, tiny_checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eqsr").write_bytes(tiny_checkpoint("liif").read_bytes())
    assert run("inspect eqsr --json").json["kind"] == "checkpoint"


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (812, "812"), (999.6, "1.00k"), (1728, "1.73k"), (27_648, "27.6k"),
     (787_200, "787k"), (999_700, "1.00M"), (1_383_424, "1.38M"), (2_422_997_120, "2.42G")],
)  # fmt: skip
def test_short_counts(count: float, said: str) -> None:
    assert short(count) == said
