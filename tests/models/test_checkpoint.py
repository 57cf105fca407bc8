from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scaleport.errors import ArtifactError, OutputError
from scaleport.grid import Grid
from scaleport.models import Network, build_network, load_checkpoint, save_checkpoint
from scaleport.models.checkpoint import read_metadata

CONFIG = {
    "encoder": {"name": "edsr", "width": 4, "blocks": 1},
    "upsampler": {"name": "liif", "hidden": [8]},
    "normalisation": {"mean": [0.5, 0.4, 0.3], "std": 0.5},
    "scale": {"min": 1.0, "max": 6.0},
}


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return build_network(CONFIG)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(network(), path, {"steps": 10})
    return path


def rewrite(path: Path, change: Any) -> None:
    """Change the header of a safetensors file; weights stay where they are."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header["__metadata__"]["scaleport"])
    change(header, meta)
    if "scaleport" in header["__metadata__"]:
        header["__metadata__"]["scaleport"] = json.dumps(meta)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    for word in (path.name, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "upsampler",
    [
        {"name": "liif", "hidden": [8, 8]},
        {"name": "igconv", "latent": 8, "scales": [2, 3]},
        {"name": "spconv", "scale": 3},
    ],
)
def test_round_trip_is_bit_exact(tmp_path: Path, upsampler: dict[str, Any]) -> None:
    torch.manual_seed(1)
    net = build_network({**CONFIG, "upsampler": upsampler})
    save_checkpoint(net, tmp_path / "a.safetensors", {"note": "ü"})
    loaded = load_checkpoint(str(tmp_path / "a.safetensors"))
    assert not loaded.training
    assert loaded.config == net.config
    assert list(loaded.state_dict()) == list(net.state_dict())
    for name, value in net.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    grid = Grid.from_scale(5, 4, 2)
    image = torch.rand(1, 3, 5, 4)
    with torch.no_grad():
        assert torch.equal(net.eval()(image, grid), loaded(image, grid))
    assert read_metadata(tmp_path / "a.safetensors") == {
        "config": net.config,
        "info": {"note": "ü"},
    }
    save_checkpoint(loaded, tmp_path / "b.safetensors", {"note": "ü"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_half_precision_weights_are_stored_as_float32(tmp_path: Path) -> None:
    net = network().half()
    save_checkpoint(net, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors").state_dict()
    for name, value in net.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.float())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_pickle_is_not_a_checkpoint(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save({"params": network().state_dict()}, path)
    refused(path, "import it first")


def test_missing_empty_and_plain_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    refused(path, "cannot read")
    path.write_bytes(b"")
    refused(path, "not a Scaleport checkpoint")
    path.write_bytes(b"\xff" * 64)
    refused(path)
    safetensors.torch.save_file(network().state_dict(), path)
    refused(path, "not a Scaleport checkpoint")
    path.unlink()
    path.mkdir()
    refused(path, "cannot read")


def test_truncated_file(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    for keep in (4, 8, 60, len(data) // 2, len(data) - 1):
        checkpoint.write_bytes(data[:keep])
        refused(checkpoint)
    checkpoint.write_bytes(data + b"tail")
    refused(checkpoint, "weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    net = network()
    with torch.no_grad():
        net.encoder.tail.bias[1] = value
    save_checkpoint(net, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "encoder.tail.bias", "NaN")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_version(checkpoint: Path, version: object) -> None:
    rewrite(checkpoint, lambda header, meta: meta.update(format_version=version))
    refused(checkpoint, "checkpoint format", "1")


def test_weights_and_configuration_must_fit(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    for change, word in (
        (lambda h, m: m["config"]["encoder"].update(width=5), "weights"),
        (lambda h, m: m["config"]["encoder"].update(blocks=2), "weights"),
        (lambda h, m: m["config"]["encoder"].update(name="other"), "known: "),
        (lambda h, m: m["config"]["encoder"].update(depth=1), "no option depth"),
        (lambda h, m: m["config"]["upsampler"].update(hidden="wide"), ""),
        (lambda h, m: m["config"].pop("upsampler"), "upsampler.name"),
        (lambda h, m: m.update(config=None), ""),
        (lambda h, m: m.update(config=[1]), ""),
        (lambda h, m: m.pop("config"), "not a Scaleport checkpoint"),
        (lambda h, m: h["__metadata__"].pop("scaleport"), "not a Scaleport checkpoint"),
        (lambda h, m: h.update(extra=h.pop("encoder.tail.bias")), "weights"),
    ):
        checkpoint.write_bytes(data)
        rewrite(checkpoint, change)
        refused(checkpoint, word)
    checkpoint.write_bytes(data)
    rewrite(checkpoint, lambda header, meta: None)
    load_checkpoint(checkpoint)


PATCH = st.binary(max_size=4) | st.sampled_from(
    [b"null", b"-1", b"[]", b"{}", b"9", b'\\"', b"F16"]
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=st.lists(st.tuples(st.floats(0, 0.6), st.integers(0, 6), PATCH), max_size=3))
@example(edits=[(0.0, 8, b"\0" * 8)])
@example(edits=[(0.0, 8, b"\xff" * 8)])
def test_altered_headers_load_or_are_artifact_errors(
    checkpoint: Path, edits: list[tuple[float, int, bytes]]
) -> None:
    original = checkpoint.read_bytes()
    data = original
    for where, length, patch in edits:
        start = int(where * len(data))
        data = data[:start] + patch + data[start + length :]
    checkpoint.write_bytes(data)
    try:
        try:
            assert isinstance(load_checkpoint(checkpoint), Network)
        except ArtifactError as error:
            assert "\n" not in str(error)
    finally:
        checkpoint.write_bytes(original)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(
        [
            ("encoder", "name"),
            ("encoder", "width"),
            ("encoder", "blocks"),
            ("encoder", "residual_scale"),
            ("encoder",),
            ("upsampler", "hidden"),
            ("upsampler",),
            ("normalisation", "mean"),
            ("normalisation", "std"),
            ("normalisation",),
            ("scale", "min"),
            ("scale", "max"),
            ("scale",),
        ]
    ),
    value=st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.floats(width=32)
    | st.text(max_size=3)
    | st.lists(st.integers(-2, 9) | st.text(max_size=2) | st.none(), max_size=3)
    | st.dictionaries(st.sampled_from(["name", "min", "a"]), st.integers(), max_size=2),
)
def test_altered_configurations_load_or_are_artifact_errors(
    checkpoint: Path, path: tuple[str, ...], value: object
) -> None:
    original = checkpoint.read_bytes()

    def change(header: Any, meta: Any) -> None:
        node = meta["config"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    rewrite(checkpoint, change)
    try:
        try:
            net = load_checkpoint(checkpoint)
            net(torch.rand(1, 3, 3, 3), Grid.from_scale(3, 3, 2))
        except ArtifactError as error:
            assert "\n" not in str(error)
    finally:
        checkpoint.write_bytes(original)


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_interrupted_write_keeps_the_old_file(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = checkpoint.read_bytes()
    real = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        real(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, step, full if step == "write_bytes" else fail)
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(network(1), checkpoint)
    monkeypatch.undo()
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]

    def killed(self: Path, data: Any) -> int:
        real(self, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(network(1), checkpoint)
    monkeypatch.undo()
    assert checkpoint.read_bytes() == before
    save_checkpoint(network(1), checkpoint)
    assert checkpoint.read_bytes() != before
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(network(), tmp_path / "none" / "a.safetensors")
