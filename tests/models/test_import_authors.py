"""Files with the names and shapes of published ones, against the authors' formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import BasicEdsr, Edsr, Rcan, Rdn, Smfanet, conv, one_convolution, tree, vary
from authors_decoders import hiif, igconv, metasr, msit
from authors_eqsr import Eqsr
from authors_windowed import HiT, Windowed
from torch import Tensor, nn
from torch.nn import functional

from scaleport.errors import ArtifactError
from scaleport.grid import Grid
from scaleport.models import load_checkpoint, save_checkpoint
from scaleport.models.importers import Imported, import_file

State = dict[str, Tensor]


def bring(tmp_path: Path, content: Any, **options: Any) -> Imported:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return import_file(path, **options)


@torch.no_grad()
def check(
    tmp_path: Path,
    module: nn.Module,
    run: Callable[[Tensor], Tensor],
    scale: int,
    size: tuple[int, int] = (6, 5),
    wrap: Callable[[State], Any] = dict,
    limit: float = 2e-5,
    **options: Any,
) -> Imported:
    """Import a file of the module's weights; its output must be the module's."""
    vary(module)
    content = wrap(module.state_dict())
    found = bring(tmp_path, content, **options)
    torch.manual_seed(1)
    image = torch.rand(1, 3, *size)
    want = run(image)
    got = found.network(image, Grid.from_scale(*size, scale))
    assert want.std() > 0.01
    error = (got - want).abs().max().item() / max(1.0, want.abs().max().item())
    assert error <= limit
    # Every key must have its place, and none is needed twice.
    state = module.state_dict()
    weights = [key for key, _ in module.named_parameters() if "_mean." not in key]
    for key in (weights[0], weights[-1]):
        with pytest.raises(ArtifactError):
            bring(tmp_path, {k: v for k, v in state.items() if k != key}, **options)
    with pytest.raises(ArtifactError, match=r"no place for other\.weight"):
        bring(tmp_path, {**state, "other.weight": torch.zeros(1)}, **options)
    save_checkpoint(found.network, tmp_path / "a.safetensors", found.info())
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(again(image, Grid.from_scale(*size, scale)), got)
    return found


def params(state: State) -> Any:
    return {"params": {k: v + 1 for k, v in state.items()}, "params_ema": state}


def described(name: str, **args: Any) -> Callable[[State], Any]:
    return lambda state: {"model": {"name": name, "args": args, "sd": state}, "epoch": 3}


@pytest.mark.parametrize(("factors", "scale"), [((2,), 2), ((3,), 3), ((2, 2), 4), ((2, 2, 2), 8)])
def test_edsr_pytorch(tmp_path: Path, factors: tuple[int, ...], scale: int) -> None:
    network = Edsr(4, 2, factors)
    found = check(tmp_path, network, network, scale)
    assert found.title == f"EDSR-x{scale}"
    norm = found.network.config["normalisation"]
    assert norm == {"mean": [0.4488, 0.4371, 0.404], "std": 1 / 255}
    state = network.state_dict()
    for key in ("sub_mean.weight", "add_mean.bias", "sub_mean.bias"):
        with pytest.raises(ArtifactError, match="mean shifts"):
            bring(tmp_path, {**state, key: state[key] * 1.1})


@pytest.mark.parametrize("encoder", ["edsr", "rdn"])
def test_metasr_and_fixed_scales_of_the_liif_project(tmp_path: Path, encoder: str) -> None:
    inner = Edsr(4, 2) if encoder == "edsr" else Rdn(4, 2, 3, 5)
    network = tree(encoder=inner)
    run = metasr(network, 4, 6, 3)
    found = check(tmp_path, network, run, 3, wrap=described("metasr"))
    assert found.title == f"{encoder.upper()}-MetaSR"
    with pytest.raises(ArtifactError, match="'liif', not 'metasr'"):
        bring(tmp_path, described("liif")(network.state_dict()))

    del network.imnet
    ups = [conv(4, 16), nn.PixelShuffle(2), conv(4, 16), nn.PixelShuffle(2)]
    if encoder == "edsr":
        tail = inner.tail = nn.Sequential(nn.Sequential(*ups), conv(4, 3))
    else:
        tail = inner.UPNet = nn.Sequential(*ups, conv(4, 3))
    found = check(
        tmp_path,
        network,
        lambda image: tail(inner.features((image - 0.5) / 0.5)) * 0.5 + 0.5,
        4,
        wrap=described("liif"),
    )
    assert found.title == f"{encoder.upper()}-x4"


def test_rdn_liif(tmp_path: Path) -> None:
    """Of LIIF, the other test has the formulas."""
    network = tree(encoder=Rdn(4, 2, 3, 5))
    sizes = [40, 6, 3]
    layers = [nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2])]
    network.imnet = tree(layers=nn.Sequential(*layers))
    vary(network)
    found = bring(tmp_path, described("liif")(network.state_dict()))
    assert found.title == "RDN-LIIF"
    image = torch.rand(1, 3, 5, 4)
    with torch.no_grad():
        feature = network.encoder.features((image - 0.5) / 0.5)
        got = found.network(image, Grid.from_scale(5, 4, 3))[0, :, 4, 4]
        patch = functional.unfold(feature, 3, padding=1)[0, :, 4 + 1]
        place = torch.tensor([0, 0, 2 / 3, 2 / 3])
        want = network.imnet.layers(torch.cat([patch, place])) * 0.5 + 0.5
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("name", ["edsr", "rdn", "smfanet", "swinir", "srformer", "hit"])
def test_igconv(tmp_path: Path, name: str, plus: bool) -> None:
    network: Any = {
        "edsr": lambda: BasicEdsr(4, 1),
        "rdn": lambda: Rdn(4, 1, 2, 3),
        "smfanet": lambda: Smfanet(8, 1),
        "swinir": lambda: Windowed(4, [1], 2, 4, 8, 1),
        "srformer": lambda: Windowed(8, [1], 2, 4, 8, 2),
        "hit": lambda: HiT(20, 1, [4, 8], 2, True),
    }[name]()
    width = {"edsr": 4, "rdn": 4, "smfanet": 8, "swinir": 4, "srformer": 8, "hit": 20}[name]
    run = igconv(network, width, 3, plus)
    found = check(tmp_path, network, run, 3, (8, 8), params)
    assert found.network.upsampler.native_scales == (2, 3, 4)
    assert any("scales 2, 3, 4" in line for line in found.assumed)
    mean = found.network.config["normalisation"]["mean"]
    assert mean == ([0, 0, 0] if name in ("rdn", "smfanet") else [0.4488, 0.4371, 0.404])
    ours = found.network.parameter_count()
    assert ours == sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("scales", [None, (2, 3)])
def test_rcan_with_trained_mean_shifts(tmp_path: Path, scales: tuple[int, ...] | None) -> None:
    network = Rcan(6, 2, 2, 3)
    run = igconv(network, 6, 3, True, 8 if scales is None else 3)
    options = {} if scales is None else {"scales": scales}
    found = check(tmp_path, network, run, 3, limit=1e-4, **options)
    assert found.network.config["encoder"]["shift"]
    assert found.network.upsampler.native_scales == (scales or (2, 3, 4, 8))
    count = sum(p.numel() for p in network.parameters())
    assert found.network.parameter_count() == count - 24 + 3


def test_rcan_with_plain_mean_shifts(tmp_path: Path) -> None:
    network = Rcan(6, 1, 1, 3)
    igconv(network, 6, 2, True)
    state = vary(network).state_dict()
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{name}.weight"] = torch.eye(3)[:, :, None, None]
        state[f"{name}.bias"] = sign * torch.tensor([0.4488, 0.4371, 0.404])
    found = bring(tmp_path, state)
    assert not found.network.config["encoder"]["shift"]
    assert found.network.config["normalisation"]["mean"] == pytest.approx([0.4488, 0.4371, 0.404])
    assert torch.equal(found.network.encoder.head.weight, state["head.0.weight"])
    state["sub_mean.weight"] = torch.ones(3, 3, 1, 1)
    with pytest.raises(ArtifactError, match="loses colours"):
        bring(tmp_path, state)


@pytest.mark.parametrize("fold", [1, 2])
def test_swinir_and_srformer(tmp_path: Path, fold: int) -> None:
    network = Windowed(8, [2, 1], 2, 4, 8, fold)
    found = check(tmp_path, network, one_convolution(network, 8, 3), 3, (8, 8), params)
    assert found.title == ("SwinIR-x3" if fold == 1 else "SRFormer-x3")
    assert found.network.config["encoder"]["window"] == 4
    assert found.unused == {
        "tables of relative positions, checked": 3,
        "masks for one image size, made here for any": 1,
    }
    state = network.state_dict()
    index = next(key for key in state if key.endswith("relative_position_index"))
    for wrong in (state[index].flip(0), state[index][:1], state[index].float() / 0):
        with pytest.raises(ArtifactError, match="relative_position_index is not what"):
            bring(tmp_path, {**state, index: wrong})
    mask = next(key for key in state if key.endswith("attn_mask"))
    with pytest.raises(ArtifactError, match="attn_mask is not what"):
        bring(tmp_path, {**state, mask: state[mask] / 2})


def test_swinir_with_the_tail_of_the_large_networks(tmp_path: Path) -> None:
    network: Any = Windowed(4, [1], 2, 4, 8, 1)
    network.conv_before_upsample = nn.Sequential(conv(4, 6), nn.LeakyReLU())
    ups = [conv(6, 24), nn.PixelShuffle(2), conv(6, 24), nn.PixelShuffle(2)]
    network.upsample, network.conv_last = nn.Sequential(*ups), conv(6, 3)

    def run(image: Tensor) -> Tensor:
        y = network.conv_before_upsample(network.features(image - network.mean))
        out: Tensor = network.conv_last(network.upsample(y)) + network.mean
        return out

    assert check(tmp_path, network, run, 4, (8, 8)).title == "SwinIR-x4"


@pytest.mark.parametrize("extra", [False, True])
def test_hit(tmp_path: Path, extra: bool) -> None:
    network = HiT(20, 1, [4, 8, 16], 2, extra)
    found = check(tmp_path, network, one_convolution(network, 20, 2), 2, (16, 16), params)
    assert found.network.config["encoder"]["windows"] == [4, 8, 16]
    assert any("windows of 4, 8, 16 pixels" in line for line in found.assumed)
    state = network.state_dict()
    moved = {key.replace("blocks.2", "blocks.9"): value for key, value in state.items()}
    moved = {key.replace("blocks.0", "blocks.2"): value for key, value in moved.items()}
    moved = {key.replace("blocks.9", "blocks.0"): value for key, value in moved.items()}
    with pytest.raises(ArtifactError, match="windows are unlike"):
        bring(tmp_path, moved)


def test_eqsr(tmp_path: Path) -> None:
    network = Eqsr(8, [2, 1], 2, 4, 8)
    vary(network)
    found = check(tmp_path, network, lambda image: network.whole(image, 2), 2, (8, 8), params)
    assert found.title == "EQSR"
    assert found.network.config["encoder"]["scale_input"] == "size"
    state = network.state_dict()
    for key in ("relative_position_index_SA", "relative_position_index_OCA"):
        for wrong in (state[key] + 1, state[key].T):
            with pytest.raises(ArtifactError, match=f"{key} is not what"):
                bring(tmp_path, {**state, key: wrong})


def test_hiif(tmp_path: Path) -> None:
    network = tree(encoder=Rdn(4, 1, 1, 4))
    run = hiif(network, 4, 8, 2, 3, 2)
    found = check(tmp_path, network, run, 2, (6, 5), described("hiif", hidden_dim=8), 1e-4)
    assert found.title == "RDN-HIIF"
    assert found.network.config["upsampler"]["heads"] == 2


@pytest.mark.parametrize("rim", [False, True])
def test_msit(tmp_path: Path, rim: bool) -> None:
    network = tree(encoder=Edsr(4, 1))
    run = msit(network, 4, 8, 2, rim, 2)
    found = check(tmp_path, network, run, 2, (6, 5), described("amsit"), 1e-4)
    assert found.network.config["upsampler"]["rim"] == rim
    assert "MSIT" in found.title
    for key, wrong in (("amsno.lem.mask", 0.0), ("amsno.lem.mix_margin", 2.0)):
        state = network.state_dict()
        with pytest.raises(ArtifactError, match=f"{key} is not what"):
            bring(tmp_path, {**state, key: torch.full_like(state[key], wrong)})
    for args in ({"use_lem": False}, {"imnet_num": 2}):
        with pytest.raises(ArtifactError, match="not supported"):
            bring(tmp_path, described("amsit", **args)(network.state_dict()))


@pytest.mark.parametrize(
    ("title", "mark"),
    [
        ("HAT", "layers.0.residual_group.blocks.0.conv_block.cab.0.weight"),
        ("ATD", "layers.0.residual_group.layers.0.attn_atd.wq.weight"),
        ("MambaIR", "layers.0.residual_group.blocks.0.self_attention.in_proj.weight"),
        ("PLKSR", "feats.1.lk.conv.weight"),
    ],
)
def test_encoders_that_there_are_none_of(tmp_path: Path, title: str, mark: str) -> None:
    state = {mark: torch.zeros(1), "to_rgb.query_kernel.0.weight": torch.zeros(1)}
    with pytest.raises(ArtifactError, match=f"encoder is {title}.* not supported; supported: EDSR"):
        bring(tmp_path, state)


def test_scales_are_only_for_networks_of_several(tmp_path: Path) -> None:
    from scaleport.errors import UsageError

    network = Edsr(4, 1, (2,))
    with pytest.raises(UsageError, match="not for choosing"):
        bring(tmp_path, vary(network).state_dict(), scales=(2, 3))


def test_safetensors_and_what_is_told(tmp_path: Path) -> None:
    import safetensors.torch

    network = HiT(20, 1, [4, 8], 2, False)
    one_convolution(network, 20, 2)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(vary(network).state_dict(), path)
    found = import_file(path)
    assert found.title == "HiT-SIR-x2"
    assert list(found.info()) == ["recognised", "project", "assumed", "unused", "set"]
    path.write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not a file"):
        import_file(path)
