"""Networks that only spandrel knows. Without it, that they are refused."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from forms import answers, check_forms, check_onnx, run_onnx, run_openvino
from torch import Tensor, nn

from scaleport.errors import ArtifactError, BackendError, UsageError
from scaleport.export import onnx as lowering
from scaleport.export.receptive import receptive_field
from scaleport.grid import Grid
from scaleport.models import UPSAMPLERS, build_network, load_checkpoint, save_checkpoint
from scaleport.models.encoders.foreign import (
    Foreign,
    continued,
    load_spandrel,
    rewrites_itself,
    settled,
    windows_for_graphs,
)
from scaleport.models.importers import import_file
from scaleport.models.network import Network

CONFIG: dict[str, Any] = {
    "encoder": {"name": "edsr", "width": 12, "blocks": 1},
    "upsampler": {"name": "shuffle", "scale": 2},
    "normalisation": {"mean": [0.45, 0.44, 0.4], "std": 0.5},
}


@pytest.fixture(scope="module")
def spandrel() -> Iterator[Any]:
    """The package, also where there is no torchvision that fits torch.

    Two of its networks, neither of which upscales, use three functions of torchvision; all others
    only need that these can be imported.
    """
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    added = []
    try:
        import torchvision  # noqa: F401
    except Exception:  # missing, or made for another torch
        functional = ModuleType("torchvision.transforms.functional")
        for name in ("InterpolationMode", "rotate", "normalize"):
            setattr(functional, name, None)
        added = ["torchvision", "torchvision.transforms", functional.__name__]
        for name in added[:2]:
            sys.modules[name] = ModuleType(name)
        sys.modules[functional.__name__] = functional
    import spandrel

    yield spandrel
    for name in added:
        del sys.modules[name]


def compact(scale: int = 2) -> nn.Sequential:
    """The body of a "Compact" network: its keys are ``body.0.weight`` and so on."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4)]
    layers += [nn.Conv2d(4, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 3 * scale**2, 3, padding=1)]
    return nn.Sequential(*layers)


def saved(body: nn.Sequential, path: Path) -> Path:
    torch.save({"params": {f"body.{key}": value for key, value in body.state_dict().items()}}, path)
    return path


def test_shuffle_in_both_forms() -> None:
    check_forms(CONFIG, scales=(2, 1.3))
    with pytest.raises(UsageError, match="does not fit 12 channels"):
        UPSAMPLERS.create("shuffle", {"scale": 3}, in_channels=12)


def test_without_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ArtifactError, match=r"pip install 'scaleport\[spandrel\]'"):
        import_file(saved(compact(), tmp_path / "a.pth"), foreign=True)
    config = {**CONFIG, "encoder": {"name": "spandrel", "shapes": {"a": [1]}, "scale": 2}}
    with pytest.raises(UsageError, match="needs the package spandrel"):
        build_network(config)


@torch.no_grad()
def test_compact(tmp_path: Path, spandrel: Any) -> None:
    torch.manual_seed(0)
    body = compact()
    found = import_file(saved(body, tmp_path / "a.pth"), foreign=True)
    assert "Compact" in found.title and found.title.endswith("-x2")
    assert found.network.parameter_count() == sum(p.numel() for p in body.parameters())
    image, grid = torch.rand(2, 3, 7, 5), Grid.from_scale(7, 5, 2)
    nearest = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    want = nn.functional.pixel_shuffle(body(image), 2) + nearest
    torch.testing.assert_close(found.network(image, grid), want, rtol=0, atol=1e-6)

    save_checkpoint(found.network, tmp_path / "a.safetensors", found.info())
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(again(image, grid), found.network(image, grid))

    check_forms(found.network.config, scales=(2, 1.3))


@pytest.mark.slow
def test_compact_in_graphs(tmp_path: Path, spandrel: Any) -> None:
    found = import_file(saved(compact(), tmp_path / "a.pth"), foreign=True)
    check_onnx(found.network.config, cases=(((7, 5), 2.0),))


def test_networks_that_change_their_weights_are_found() -> None:
    class Merging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.conv.weight.data = self.conv.weight.data * 1
            out: Tensor = self.conv(x)
            return out

    assert rewrites_itself(Merging(), 4)
    assert not rewrites_itself(compact(), 4)


def test_what_spandrel_does_not_know(tmp_path: Path, spandrel: Any) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ArtifactError, match=r"no network with these weights \(the first is a"):
        import_file(tmp_path / "a.pth", foreign=True)
    body = compact()
    with torch.no_grad():
        body[0].weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="NaN"):
        import_file(saved(body, tmp_path / "a.pth"), foreign=True)


def made(module: nn.Module, path: Path, content: Any = None) -> Network:
    """A network imported from a file of a module's weights."""
    torch.save(module.state_dict() if content is None else content, path)
    network = import_file(path, foreign=True).network
    assert isinstance(network.encoder, Foreign)
    return network


NESTINGS = ("net", "model_state_dict", "generator", "netG", "params-ema", "params_ema", "only")
PREFIXES = ("_orig_mod.", "model.", "net_g.", "module.", "module._orig_mod.", "net_g.module.")


@torch.no_grad()
@pytest.mark.parametrize("nesting", NESTINGS)
def test_nestings(nesting: str, tmp_path: Path, spandrel: Any) -> None:
    body = compact()
    state = {f"body.{key}": value for key, value in body.state_dict().items()}
    other = {} if nesting == "only" else {"epoch": 3, "optimizer": {"lr": 1.0}}
    network = made(body, tmp_path / "a.pth", {nesting: state, **other})
    assert torch.equal(network.encoder.model.body[0].weight, body[0].weight)
    network = made(body, tmp_path / "a.pth", {"state_dict": {nesting: state}, **other})
    assert torch.equal(network.encoder.model.body[0].weight, body[0].weight)


@torch.no_grad()
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(prefix: str, tmp_path: Path, spandrel: Any) -> None:
    body = compact()
    state = {f"{prefix}body.{key}": value for key, value in body.state_dict().items()}
    network = made(body, tmp_path / "a.pth", {"params": state})
    assert torch.equal(network.encoder.model.body[0].weight, body[0].weight)


def esrgan(spandrel: Any, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = spandrel.architectures.ESRGAN.ESRGAN(num_filters=8, num_blocks=1, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    module: nn.Module = model.eval()
    return module


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "multiple"),
    [({"scale": 4}, 1), ({"scale": 2}, 1), ({"in_nc": 12, "scale": 4, "shuffle_factor": 2}, 2)],
)
def test_esrgan_of_odd_sizes_is_the_network_itself(
    options: dict[str, Any], multiple: int, tmp_path: Path, spandrel: Any
) -> None:
    model = esrgan(spandrel, **options)
    network = made(model, tmp_path / "a.pth")
    assert (network.encoder.multiple, network.encoder.minimum) == (multiple, multiple)
    scale = network.encoder.scale
    for size in ((13, 9), (7, 12), (5, 5), (2, 3), (16, 8)):
        image = torch.rand(2, 3, *size)
        want = model(image)
        got = network(image, Grid.from_scale(*size, scale))
        assert want.std() > 1e-3 and got.shape == want.shape
        assert (got - want).abs().max() <= 1e-5, size
    tiny = network(torch.rand(1, 3, 1, 1), Grid.from_scale(1, 1, scale))
    assert tiny.isfinite().all()
    # Shapes and padding are in the checkpoint: the network is the same when it is read again.
    save_checkpoint(network, tmp_path / "a.safetensors")
    again = load_checkpoint(tmp_path / "a.safetensors")
    image, grid = torch.rand(1, 3, 7, 5), Grid.from_scale(7, 5, scale)
    assert torch.equal(again(image, grid), network(image, grid))


@pytest.mark.slow
def test_esrgan_of_odd_sizes_in_graphs(tmp_path: Path, spandrel: Any) -> None:
    model = esrgan(spandrel, in_nc=12, scale=4, shuffle_factor=2)
    network = made(model, tmp_path / "a.pth")
    check_onnx(network.config, dtypes=(torch.float32,), cases=(((13, 9), 2.0), ((1, 4), 2.0)))


def test_padding_as_spandrel_does_it(spandrel: Any) -> None:
    from spandrel.__helpers.size_req import SizeRequirements, pad_tensor

    for length in (1, 2, 5, 9):
        image = torch.rand(1, 3, length, 1)
        _, want = pad_tensor(image, SizeRequirements(minimum=16, multiple_of=1))
        got = image.index_select(2, continued(length, 16, image))
        assert torch.equal(got, want[..., :1])


@torch.no_grad()
def test_span_merges_its_weights_once(tmp_path: Path, spandrel: Any) -> None:
    torch.manual_seed(0)
    model = spandrel.architectures.SPAN.SPAN(
        num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2
    ).eval()
    assert rewrites_itself(model, 16)
    twin = settled(model, 16)
    assert not rewrites_itself(twin, 16)
    image = torch.rand(2, 3, 11, 7)
    want = model(image)
    assert torch.equal(twin(image), want) and rewrites_itself(model, 16)
    network = made(model, tmp_path / "a.pth")
    torch.testing.assert_close(network(image, Grid.from_scale(11, 7, 2)), want, rtol=0, atol=1e-6)
    assert network.export_refusal == "" and network.encoder.rewrites == ("weights merged once",)
    form = network.deploy()
    (got,) = answers(network, form, image, Grid.from_scale(11, 7, 2))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    stage = form.encode.module
    assert not rewrites_itself(stage, 16)


@pytest.mark.slow
def test_span_in_graphs(tmp_path: Path, spandrel: Any) -> None:
    model = spandrel.architectures.SPAN.SPAN(
        num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2
    )
    network = made(model.eval(), tmp_path / "a.pth")
    check_onnx(network.config, dtypes=(torch.float32,), cases=(((7, 5), 2.0),))


def craft(spandrel: Any, **options: Any) -> nn.Module:
    """CRAFT; below 32 channels its code makes layers of no width, which no exporter takes."""
    torch.manual_seed(0)
    small = {"embed_dim": 32, "depths": [1], "num_heads": [2], "upscale": 2}
    model: nn.Module = spandrel.architectures.CRAFT.CRAFT(**{**small, **options}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                # Fresh ones are so small that attention and its biases hardly matter.
                module.weight.mul_(10)
    return model


@pytest.mark.parametrize("name", ["CRAFT", "SwinIR", "GRL", "Uformer"])
def test_windows_are_those_of_spandrel(name: str, spandrel: Any) -> None:
    network = getattr(spandrel.architectures, name)
    kind = getattr(network, name)
    theirs = sys.modules[kind.__module__]
    if name == "GRL":
        theirs = sys.modules[kind.__module__.rpartition(".")[0] + ".ops"]

    class Uses(nn.Module):
        __module__ = theirs.__name__

    def windows(image: Tensor) -> list[Tensor]:
        if name == "CRAFT":
            cut = theirs.img2windows(image, 4, 2)
            return [cut, theirs.windows2img(cut, 4, 2, 12, 10)]
        window = [4, 2] if name == "GRL" else 2
        cut = theirs.window_partition(image.permute(0, 2, 3, 1), window)
        return [
            cut,
            theirs.window_reverse(cut, window, *((12, 10) if name != "GRL" else ((12, 10),))),
        ]

    image = torch.rand(2, 3, 12, 10)
    want = windows(image)
    before = dict(vars(theirs))
    with windows_for_graphs(Uses()):
        assert vars(theirs) != before
        got = windows(image)
    assert vars(theirs) == before
    for mine, others in zip(got, want, strict=True):
        assert torch.equal(mine, others)


@torch.no_grad()
def test_craft(tmp_path: Path, spandrel: Any) -> None:
    model = craft(spandrel)
    network = made(model, tmp_path / "a.pth")
    assert network.encoder.multiple == 16
    image = torch.rand(1, 3, 21, 34)
    want = spandrel.ModelLoader().load_from_state_dict(model.state_dict())
    # Its descriptor clamps, which a network here does not.
    got = network(image, Grid.from_scale(21, 34, 2)).clamp(0, 1)
    torch.testing.assert_close(got, want(image), rtol=0, atol=1e-5)
    check_forms(network.config, scales=(2,), dtypes=(torch.float32,))


def test_what_sees_the_whole_image_is_not_measured(tmp_path: Path, spandrel: Any) -> None:
    assert receptive_field(made(craft(spandrel), tmp_path / "a.pth")) is None
    assert receptive_field(made(esrgan(spandrel, scale=2), tmp_path / "a.pth")) == 19


@torch.no_grad()
def check_against_spandrel(model: nn.Module, path: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """Hold ONNX Runtime and OpenVINO against the network itself, padded by spandrel's code."""
    from spandrel.__helpers.size_req import SizeRequirements, pad_tensor

    network = made(model, path)
    encoder = network.encoder
    assert isinstance(encoder, Foreign)
    scale, needs = encoder.scale, SizeRequirements(encoder.minimum, encoder.multiple)
    form = network.deploy(torch.float32)
    stages = form.stages()
    with pytest.MonkeyPatch.context() as patch:
        # The long way, through all that PyTorch's exporter does, takes many times as long.
        patch.delattr(lowering, "_export")
        graphs = {stage.name: lowering.export_stage(stage) for stage in stages}
    for size in sizes:
        image, grid = torch.rand(2, 3, *size), Grid.from_scale(*size, scale)
        want = model(pad_tensor(image, needs)[1])[..., : size[0] * scale, : size[1] * scale]
        assert want.std() > 1e-2
        for run in (run_onnx(graphs), run_openvino(graphs)):
            (got,) = answers(network, form, image, grid, run)
            # To the last row and column: those are made of padding too.
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.slow
def test_windows_in_graphs(tmp_path: Path, spandrel: Any) -> None:
    check_against_spandrel(craft(spandrel), tmp_path / "a.pth", ((16, 32), (21, 34), (5, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CRAFT", "SPAN"])
def test_networks_of_published_widths(name: str, tmp_path: Path, spandrel: Any) -> None:
    torch.manual_seed(0)
    if name == "CRAFT":
        options = {"embed_dim": 48, "depths": [2, 2], "num_heads": [6, 6], "upscale": 4}
        check_against_spandrel(craft(spandrel, **options), tmp_path / "a.pth", ((32, 16), (17, 40)))
    else:
        options = {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 48, "upscale": 4}
        model = spandrel.architectures.SPAN.SPAN(**options).eval()
        check_against_spandrel(model, tmp_path / "a.pth", ((32, 16), (17, 41)))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("operator torchvision::nms does not exist"), "torchvision::nms .*index"),
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), "torchvision"),
        (ImportError("undefined symbol", name="torchvision._C"), "torchvision, which is missing"),
        (ModuleNotFoundError("No module named 'einops'", name="einops"), "pip install einops"),
    ],
)
def test_a_package_that_spandrel_needs(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "spandrel":
                raise error

    for name in [name for name in sys.modules if name.split(".")[0] == "spandrel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    with pytest.raises(BackendError, match=words) as caught:
        load_spandrel()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    with pytest.raises(BackendError, match=words):
        import_file(saved(compact(), tmp_path / "a.pth"), foreign=True)
