"""The catalogue of named networks is that of the networks there are, and counts are right."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import nn

from scaleport.catalogue import COMMAND, FILE, Catalogue, Entry, catalogue
from scaleport.errors import ArtifactError, OutputError
from scaleport.models import ENCODERS, UPSAMPLERS, build_network
from scaleport.models.compositions import COMPOSITIONS
from scaleport.models.macs import count
from tools.catalogue import (
    DOCUMENT,
    config_hash,
    entry,
    in_document,
    make,
    options,
    table,
)

STALE = f"the catalogue is out of date, run: {COMMAND}"
NETWORKS = {found.name: found for found in catalogue().networks}


def test_every_composition_is_there_as_it_is_now() -> None:
    known = {name: found.config_sha256 for name, found in NETWORKS.items()}
    now = {name: config_hash(made.config) for name, made in COMPOSITIONS.items()}
    assert known == now, STALE
    assert {name: found.config for name, found in NETWORKS.items()} == {
        name: made.config for name, made in COMPOSITIONS.items()
    }, STALE


# One of every kind of counting: bound and general graphs, prepare stages, borders, no export.
@pytest.mark.parametrize(
    "name",
    [
        "edsr-baseline-liif",
        "edsr-baseline-metasr",
        "edsr-baseline-igconv-plus",
        "edsr-baseline-x2",
        "smfanet-plus-x3",
        "hit-srf-x4",
        pytest.param("eqsr", marks=pytest.mark.slow),
        pytest.param("msit-edsr", marks=pytest.mark.slow),
        pytest.param("mambairv2-light-x2", marks=pytest.mark.slow),
    ],
)
def test_made_again_it_is_the_same(name: str) -> None:
    assert entry(COMPOSITIONS[name]) == NETWORKS[name], STALE


def test_parts_have_the_options_they_have_now() -> None:
    plain = msgspec.to_builtins((options(ENCODERS), options(UPSAMPLERS)))
    listed = msgspec.json.decode(msgspec.json.encode(plain))
    assert listed == [catalogue().encoders, catalogue().upsamplers], STALE


def test_document_holds_the_table_of_the_catalogue() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert in_document(text, table(catalogue().networks)) == text, STALE


def test_document_without_markers_is_refused() -> None:
    with pytest.raises(OutputError, match="has lost its markers"):
        in_document("# Networks\n", "a table")


# Multiply-adds per LR pixel, worked out by hand: layer by layer, channels in times out times taps.
EDSR = 27 * 64 + 33 * 9 * 64 * 64
LIIF = 4 * (580 * 256 + 3 * 256 * 256 + 256 * 3)
IPE = 4 * (616 * 256 + 3 * (256 + 616) * 256 + 256 * 3)
METASR = 3 * 256 + 256 * 27 * 64 + 27 * 64
TAIL_X4 = 9 * 64 * 256 + 4 * 9 * 64 * 256 + 16 * 27 * 64


@pytest.mark.parametrize(
    ("name", "encode", "render"),
    [
        ("edsr-baseline-liif", EDSR, 16 * LIIF),
        ("edsr-baseline-ipe-liif", EDSR, 16 * IPE),
        ("edsr-baseline-metasr", EDSR, 16 * METASR),
        ("edsr-baseline-x4", EDSR, TAIL_X4),
        ("edsr-baseline-igconv", EDSR, 16 * 27 * 64),
        ("edsr-baseline-igconv-plus", EDSR, 16 * 135 * 64),
        ("swinir-light-x4", None, 16 * 27 * 60),
        ("rdn-liif", 21_964_480, 16 * LIIF),  # as counted by others
    ],
)
def test_training_form_by_hand(name: str, encode: int | None, render: int) -> None:
    macs = NETWORKS[name].macs
    assert macs.scale == 4
    assert macs.training.encode == pytest.approx(encode or macs.training.encode, rel=1e-9)
    assert macs.training.render * 16 == pytest.approx(render, rel=1e-9)


def test_deploy_form_by_hand() -> None:
    liif = NETWORKS["edsr-baseline-liif"].macs.deploy
    assert liif.encode == EDSR + 9 * 64 * 256
    assert liif.render == 4 * (3 * 256 * 256 + 256 * 3)
    metasr = NETWORKS["edsr-baseline-metasr"].macs
    assert metasr.deploy.render == 27 * 64
    assert metasr.deploy_general == 27 * 64 * 257 / 16
    # The tail of SPConv+ is a 5x5 convolution, and what its border strips cost: 3 LR pixels each.
    plus = NETWORKS["edsr-baseline-x4"].macs.deploy.render * 16
    strips = 4 * 3 * 192 / 192**2
    assert 75 * 16 * 64 < plus < 75 * 16 * 64 + 1.1 * strips * TAIL_X4
    kernels = NETWORKS["edsr-baseline-igconv"].macs.deploy.prepare
    # And 128 for the phase, once.
    assert kernels == 9 * 64 * 16 * (4 * 256 * 256 + 256 * 3) + 128


def test_general_kernels_are_counted_as_convolutions() -> None:
    """The general render graph multiplies patches with a kernel: as much as the frozen one."""
    macs = NETWORKS["edsr-baseline-igconv"].macs
    assert macs.deploy_general == macs.deploy.render


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_cheaper_says_why(name: str) -> None:
    found: Entry = NETWORKS[name]
    scale = found.macs.scale
    before, after = (form.total(scale) for form in (found.macs.training, found.macs.deploy))
    assert after <= before * 1.001
    assert found.rewrites or after == before
    assert (found.tiling.kind == "exact") == (not found.tiling.reasons)


def test_counting_leaves_the_network_alone() -> None:
    network = build_network(COMPOSITIONS["smfanet-plus-x2"].small).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(isinstance(parameter, nn.Parameter) for parameter in network.parameters())


@pytest.mark.parametrize("data", [b"", b"{}", b'{"encoders": {}, "upsamplers": {}}'])
def test_damaged_file_is_an_error_that_says_so(tmp_path, monkeypatch, data: bytes) -> None:
    (tmp_path / "catalogue.json").write_bytes(data)
    monkeypatch.setattr("scaleport.catalogue.FILE", tmp_path / "catalogue.json")
    catalogue.cache_clear()
    try:
        with pytest.raises(ArtifactError, match="cannot be read, install scaleport again"):
            catalogue()
    finally:
        catalogue.cache_clear()
    assert isinstance(msgspec.json.decode(FILE.read_bytes(), type=Catalogue), Catalogue)


def test_entries_of_known_configurations_are_taken_over(monkeypatch) -> None:
    def refuse(composition: object) -> None:
        raise AssertionError(composition)

    monkeypatch.setattr("tools.catalogue.entry", refuse)
    assert msgspec.json.encode(make(COMPOSITIONS.values(), catalogue())) == msgspec.json.encode(
        catalogue()
    )
    with pytest.raises(AssertionError):
        make([COMPOSITIONS["eqsr"]])
