from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from scaleport.errors import ArtifactError
from scaleport.grid import Grid
from scaleport.models import Network, load_checkpoint, save_checkpoint
from scaleport.models.importers import import_file

State = dict[str, Tensor]


def conv(state: State, name: str, inputs: int, outputs: int, kernel: int | None) -> None:
    shape = (outputs, inputs) if kernel is None else (outputs, inputs, kernel, kernel)
    state[f"{name}.weight"] = torch.randn(shape) * 0.1
    state[f"{name}.bias"] = torch.randn(outputs) * 0.1


def liif_state(width: int, blocks: int, hidden: list[int]) -> State:
    state: State = {}
    for shift in ("sub_mean", "add_mean"):
        conv(state, f"encoder.{shift}", 3, 3, 1)
    conv(state, "encoder.head.0", 3, width, 3)
    for i in range(blocks):
        conv(state, f"encoder.body.{i}.body.0", width, width, 3)
        conv(state, f"encoder.body.{i}.body.2", width, width, 3)
    conv(state, f"encoder.body.{blocks}", width, width, 3)
    sizes = [9 * width + 4, *hidden, 3]
    for i in range(len(sizes) - 1):
        conv(state, f"imnet.layers.{2 * i}", sizes[i], sizes[i + 1], None)
    return state


def liif_file(state: State, **args: Any) -> dict[str, Any]:
    spec = {"encoder_spec": {"name": "edsr-baseline", "args": {"no_upsampling": True}}}
    return {
        "model": {"name": "liif", "args": {**spec, **args}, "sd": state},
        "optimizer": {
            "name": "adam",
            "args": {"lr": 1e-4},
            "sd": {"state": {}, "param_groups": []},
        },
        "epoch": 1000,
    }


def igconv_state(width: int, blocks: int, latent: int, layers: int) -> State:
    state: State = {}
    conv(state, "conv_first", 3, width, 3)
    for i in range(blocks):
        conv(state, f"body.{i}.conv1", width, width, 3)
        conv(state, f"body.{i}.conv2", width, width, 3)
    conv(state, "conv_after_body", width, width, 3)
    state["upsample.freq"] = torch.randn(9 * width, latent, 1, 1)
    state["upsample.amplitude"] = torch.randn(9 * width, latent, 1, 1)
    conv(state, "upsample.phase", 1, latent // 2, 1)
    for i in range(layers):
        conv(state, f"upsample.query_kernel.{2 * i}", latent, latent, 1)
    conv(state, f"upsample.query_kernel.{2 * layers}", latent, 3, 1)
    return state


def imported(tmp_path: Path, content: Any) -> Network:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return import_file(path).network


def refused(tmp_path: Path, content: Any, *words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        imported(tmp_path, content)
    assert "\n" not in str(caught.value)
    for word in ("weights.pth", *words):
        assert word in str(caught.value)


def edsr_by_hand(
    image: Tensor, state: State, name: Callable[[str], str], blocks: int, residual: float
) -> Tensor:
    """EDSR straight from the keys of a file; ``name`` gives the key of a layer."""

    def apply(layer: str, x: Tensor) -> Tensor:
        key = name(layer)
        return functional.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)

    head = apply("head", image)
    x = head
    for i in range(blocks):
        x = x + residual * apply(f"{i}.2", functional.relu(apply(f"{i}.1", x)))
    return head + apply("tail", x)


@pytest.mark.parametrize(("width", "blocks", "hidden"), [(4, 2, [6, 5]), (2, 1, [3])])
@torch.no_grad()
def test_liif(tmp_path: Path, width: int, blocks: int, hidden: list[int]) -> None:
    torch.manual_seed(0)
    state = liif_state(width, blocks, hidden)
    net = imported(tmp_path, liif_file(state))
    assert not net.training
    assert net.config["encoder"]["width"] == width
    assert net.config["encoder"]["blocks"] == blocks
    assert net.config["upsampler"]["hidden"] == hidden
    assert net.config["normalisation"] == {"mean": [0.5, 0.5, 0.5], "std": 0.5}
    assert net.parameter_count() == sum(v.numel() for v in state.values()) - 24

    def name(layer: str) -> str:
        names = {"head": "head.0", "tail": f"body.{blocks}"}
        number, _, conv = layer.partition(".")
        inner = {"1": "0", "2": "2"}.get(conv, "")
        return "encoder." + names.get(layer, f"body.{number}.body.{inner}")

    image = torch.rand(1, 3, 6, 5)
    feature = edsr_by_hand((image - 0.5) / 0.5, state, name, blocks, 1.0)
    torch.testing.assert_close(net.encode(image)["feature"], feature, rtol=0, atol=1e-6)

    # One query that lies on a pixel: a single neighbour counts, with rel = 0 and cell = 2 / s.
    grid = Grid.from_scale(6, 5, 3)
    patch = functional.pad(feature, (1, 1, 1, 1))[0, :, 2:5, 3:6].reshape(-1)
    x = torch.cat([patch, torch.tensor([0, 0, 2 / 3, 2 / 3])])
    for i in range(len(hidden) + 1):
        x = state[f"imnet.layers.{2 * i}.weight"] @ x + state[f"imnet.layers.{2 * i}.bias"]
        x = functional.relu(x) if i < len(hidden) else x
    got = net(image, grid)[0, :, 2 * 3 + 1, 3 * 3 + 1]
    torch.testing.assert_close(got, x * 0.5 + 0.5, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("width", "blocks", "latent", "layers"), [(4, 2, 6, 3), (1, 1, 2, 1)])
@torch.no_grad()
def test_igconv(tmp_path: Path, width: int, blocks: int, latent: int, layers: int) -> None:
    torch.manual_seed(0)
    state = igconv_state(width, blocks, latent, layers)
    net = imported(tmp_path, {"params": state})
    assert net.config["encoder"]["residual_scale"] == 1.0
    assert net.parameter_count() == sum(v.numel() for v in state.values())
    own = net.state_dict()
    for theirs, ours in (
        ("upsample.freq", "upsampler.freq"),
        ("upsample.amplitude", "upsampler.amplitude"),
        ("upsample.phase.weight", "upsampler.phase.weight"),
        ("upsample.phase.bias", "upsampler.phase.bias"),
        *(
            (f"upsample.query_kernel.{2 * i}.{part}", f"upsampler.mlp.{2 * i}.{part}")
            for i in range(layers + 1)
            for part in ("weight", "bias")
        ),
    ):
        value = state[theirs]
        assert torch.equal(own[ours], value.reshape(value.shape[:2]))

    def name(layer: str) -> str:
        names = {"head": "conv_first", "tail": "conv_after_body"}
        return names.get(layer, "body." + layer.replace(".", ".conv"))

    mean = torch.tensor([0.4488, 0.4371, 0.404])[None, :, None, None]
    image = torch.rand(1, 3, 6, 5)
    feature = edsr_by_hand(image - mean, state, name, blocks, 1.0)
    torch.testing.assert_close(net.encode(image)["feature"], feature, rtol=0, atol=1e-6)
    grid = Grid.from_scale(6, 5, 2)
    kernel = net.prepare(grid)["kernel"].reshape(12, width, 3, 3)
    expected = functional.pixel_shuffle(functional.conv2d(feature, kernel, padding=1), 2) + mean
    torch.testing.assert_close(net(image, grid), expected, rtol=0, atol=1e-5)


def test_published_sizes(tmp_path: Path) -> None:
    liif = imported(tmp_path, liif_file(liif_state(64, 16, [256] * 4)))
    assert liif.parameter_count() == 1_567_299
    igconv = imported(tmp_path, {"params": igconv_state(64, 16, 256, 4)})
    assert igconv.parameter_count() == 1_779_523


def test_where_the_weights_lie(tmp_path: Path) -> None:
    plain, averaged = igconv_state(2, 1, 2, 1), igconv_state(2, 1, 2, 1)
    for content, expected in (
        ({"params": plain, "params_ema": averaged}, averaged),
        ({"params": plain}, plain),
        ({"params": {f"module.{k}": v for k, v in plain.items()}}, plain),
        (plain, plain),
    ):
        net = imported(tmp_path, content)
        assert torch.equal(net.encoder.head.weight, expected["conv_first.weight"])
    bare = liif_state(2, 1, [3])
    assert torch.equal(imported(tmp_path, bare).encoder.head.bias, bare["encoder.head.0.bias"])


def test_residual_scale(tmp_path: Path) -> None:
    file = liif_file(liif_state(2, 1, [3]))
    file["model"]["args"]["encoder_spec"]["args"]["res_scale"] = 0.1
    assert imported(tmp_path, file).encoder.body[0].residual_scale == 0.1
    file["model"]["args"]["encoder_spec"]["args"]["res_scale"] = "big"
    refused(tmp_path, file, "residual_scale")


def test_published_large_encoder_scales_its_residuals() -> None:
    from scaleport.models.importers.convolutional import edsr_config

    assert edsr_config(256, 32)[0]["residual_scale"] == 0.1
    assert edsr_config(64, 32)[0]["residual_scale"] == 1.0


def test_other_precisions_become_float32(tmp_path: Path) -> None:
    state = {k: v.half() for k, v in igconv_state(2, 1, 2, 1).items()}
    net = imported(tmp_path, {"params": state})
    assert net.encoder.head.weight.dtype == torch.float32
    assert torch.equal(net.encoder.head.weight, state["conv_first.weight"].float())


def test_imported_network_becomes_a_checkpoint(tmp_path: Path) -> None:
    for content in (liif_state(2, 1, [3]), igconv_state(2, 1, 2, 1)):
        net = imported(tmp_path, content)
        save_checkpoint(net, tmp_path / "a.safetensors")
        again = load_checkpoint(tmp_path / "a.safetensors")
        assert again.config == json.loads(json.dumps(net.config))
        image, grid = torch.rand(1, 3, 5, 4), Grid.from_scale(5, 4, 2)
        with torch.no_grad():
            assert torch.equal(net(image, grid), again(image, grid))


@pytest.mark.parametrize("layout", ["liif", "igconv"])
def test_every_key_needs_a_place(tmp_path: Path, layout: str) -> None:
    full = liif_state(2, 2, [3, 3]) if layout == "liif" else igconv_state(2, 2, 2, 2)
    unused = {k for k in full if "_mean." in k}
    for key in full:
        without = {k: v for k, v in full.items() if k != key}
        if key in unused:
            imported(tmp_path, without)
        else:
            with pytest.raises(ArtifactError, match=r"weights\.pth cannot be imported"):
                imported(tmp_path, without)
    refused(tmp_path, {**full, "upsample.scope.weight": torch.zeros(1)}, "upsample.scope.weight")
    many = {f"extra.{i}": torch.zeros(1) for i in range(9)}
    refused(tmp_path, {**full, **many}, "no place for extra.0, extra.1", "and 4 more")
    part = "encoder.body.1.body.2.bias" if layout == "liif" else "body.1.conv2.bias"
    refused(tmp_path, {k: v for k, v in full.items() if k != part}, "missing are " + part)
    far = part.replace("body.1", "body.999999999", 1)
    refused(tmp_path, {**full, far: torch.zeros(2)}, far)


@pytest.mark.parametrize("layout", ["liif", "igconv"])
def test_every_weight_must_fit(tmp_path: Path, layout: str) -> None:
    full = liif_state(2, 1, [3]) if layout == "liif" else igconv_state(2, 1, 2, 1)
    for key, value in full.items():
        if "_mean." in key:
            continue
        for wrong in (value[..., None], torch.cat([value, value]), value.sum()):
            with pytest.raises(ArtifactError, match=r"weights\.pth"):
                imported(tmp_path, {**full, key: wrong})
        refused(tmp_path, {**full, key: value / 0}, key, "NaN or infinity")
        refused(tmp_path, {**full, key: value.int()}, key, "floating-point")


def test_a_description_that_the_weights_contradict_is_refused(tmp_path: Path) -> None:
    state = liif_state(2, 1, [3])
    for switch in ("feat_unfold", "cell_decode"):
        words = f"says {switch} False, but its decoder takes 22 values"
        refused(tmp_path, liif_file(state, **{switch: False}), words)
        imported(tmp_path, liif_file(state, **{switch: True}))
    file = liif_file(state)
    file["model"]["name"] = "metasr"
    refused(tmp_path, file, "'metasr'")
    less = {**state, "imnet.layers.0.weight": state["imnet.layers.0.weight"][:, :-1]}
    refused(tmp_path, liif_file(less), "takes 21 values", "22, 20, 6, 4")
    no_cell = {**state, "imnet.layers.0.weight": state["imnet.layers.0.weight"][:, :-2]}
    refused(tmp_path, liif_file(no_cell, cell_decode=True), "says cell_decode True")


def test_what_is_no_known_model(tmp_path: Path) -> None:
    for content in ([1, 2], {}, "text", torch.zeros(3)):
        refused(tmp_path, content, "no weights by name")
    refused(tmp_path, {"a": torch.zeros(1)}, "no known layout", "-LIIF", "EQSR", "IGConv")
    refused(tmp_path, {"a": torch.zeros(1)}, "--spandrel may know it")
    refused(tmp_path, {"params": {"a": 1}}, "'a' is not a named tensor")
    refused(tmp_path, {1: torch.zeros(1)}, "1 is not a named tensor")
    state = igconv_state(2, 1, 2, 1)
    refused(tmp_path, {**state, "module.conv_first.bias": torch.zeros(2)}, "twice")


class Evil:
    """Its pickle runs a command when it is loaded by a trusting reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    refused(tmp_path, {"params": igconv_state(2, 1, 2, 1), "x": Evil(tmp_path / "ran")}, "run code")
    assert not (tmp_path / "ran").exists()
    refused(tmp_path, torch.nn.Linear(2, 2), "run code")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        import_file(tmp_path / "none.pth")
    with pytest.raises(ArtifactError, match="cannot read"):
        import_file(tmp_path)
    for data in (b"", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00."):
        (tmp_path / "a.pth").write_bytes(data)
        with pytest.raises(ArtifactError, match=r"a\.pth") as caught:
            import_file(str(tmp_path / "a.pth"))
        assert "\n" not in str(caught.value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "fuzz.pth"
    torch.save({"params": igconv_state(1, 1, 2, 1)}, path)
    return path


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    keep=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_files_load_or_are_artifact_errors(
    weights: Path, edits: list[tuple[float, int]], keep: float
) -> None:
    original = weights.read_bytes()
    data = bytearray(original)
    for where, value in edits:
        data[int(where * len(data))] = value
    weights.write_bytes(data[: round(keep * len(data))])
    try:
        try:
            assert isinstance(import_file(weights).network, Network)
        except ArtifactError as error:
            assert "\n" not in str(error)
    finally:
        weights.write_bytes(original)
