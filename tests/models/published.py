"""Whole published networks: a network of ours, and its forward pass as the papers state it.

The statements are those of :mod:`authors` and its neighbours, on random weights that are imported
like a published file; of networks that nobody published a file of, on the weights of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from authors import BasicEdsr, Edsr, Rcan, Rdn, Smfanet, conv, one_convolution, tree, vary
from authors_decoders import hiif, igconv, liif, lte, metasr, msit, positions
from authors_eqsr import Eqsr
from authors_thera import FlaxConvNeXt, FlaxEdsr, FlaxRdn, FlaxSwin, heat_field, pickled, thera
from authors_windowed import HiT, Windowed, continued, mirrored, reflected, scripted
from forms import make
from published_c2d import hiet, mambairv2
from torch import Tensor, nn
from torch.nn import functional

from scaleport.models import Network
from scaleport.models.importers import import_file

Run = Callable[[Tensor], Tensor]
Made = tuple[Network, Run]
Size = tuple[int, int]


@dataclass(frozen=True)
class Published:
    """A network, the sizes it is compared at, and the scale.

    Attributes:
        make: gives our network, and the statement of it for float[1, 3, H, W].
        sizes: whole windows, and sizes that are not.
    """

    make: Callable[[Path], Made]
    scale: int
    sizes: tuple[Size, ...] = ((6, 5), (8, 8))


def brought(folder: Path, module: nn.Module, run: Run, name: str = "", **options: Any) -> Made:
    """A file of the module's weights as a network of ours."""
    content: Any = vary(module).state_dict()
    if name:
        args = options.pop("args", {})
        content = {"model": {"name": name, "args": args, "sd": content}}
    path = folder / "weights.pth"
    torch.save(content, path)
    return import_file(path, **options).network, run


def _edsr(factors: tuple[int, ...]) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = Edsr(8, 2, factors)
        return brought(folder, network, network)

    return made


def _rdn_fixed(folder: Path) -> Made:
    inner = Rdn(4, 2, 3, 5)
    ups = [conv(4, 16), nn.PixelShuffle(2), conv(4, 16), nn.PixelShuffle(2), conv(4, 3)]
    inner.UPNet = nn.Sequential(*ups)

    def run(image: Tensor) -> Tensor:
        out: Tensor = inner.UPNet(inner.features((image - 0.5) / 0.5)) * 0.5 + 0.5
        return out

    return brought(folder, tree(encoder=inner), run, "liif")


def _igconv(
    build: Callable[[], Any], width: int, plus: bool, window: int = 1, **options: Any
) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = build()
        run = igconv(network, width, 3, plus, options.pop("max_s", 4))
        return brought(folder, network, continued(run, window) if window > 1 else run, **options)

    return made


def _beyond(folder: Path) -> Made:
    """x8 of an IGConv that was trained up to x4."""
    network = BasicEdsr(4, 1)
    run = igconv(network, 4, 8, True, 4)
    return brought(folder, network, run, scales=(2, 3, 4, 8))


def _light(fold: int, window: int, pad: Any = reflected, **settings: Any) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = Windowed(8, [2], 2, window, window, fold)
        run = continued(one_convolution(network, 8, 2), window, pad)
        return brought(folder, network, run, settings=settings)

    return made


def _classical(folder: Path) -> Made:
    network: Any = Windowed(8, [2], 2, 8, 8, 1)
    network.conv_before_upsample = nn.Sequential(conv(8, 6), nn.LeakyReLU())
    ups = [conv(6, 24), nn.PixelShuffle(2), conv(6, 24), nn.PixelShuffle(2)]
    network.upsample, network.conv_last = nn.Sequential(*ups), conv(6, 3)

    def run(image: Tensor) -> Tensor:
        y = network.conv_before_upsample(network.features(image - network.mean))
        out: Tensor = network.conv_last(network.upsample(y)) + network.mean
        return out

    return brought(folder, network, continued(run, 8))


def _hit(extra: bool) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = HiT(20, 1, [4, 8, 16, 32], 2, extra)
        return brought(folder, network, one_convolution(network, 20, 2))

    return made


def _eqsr(folder: Path) -> Made:
    network = Eqsr(8, [2, 1], 2, 8, 8)
    vary(network)
    return brought(folder, network, lambda image: network.whole(image, 2))


def _liif(**switches: bool) -> Callable[[Path], Made]:
    words = {"ensemble": "local_ensemble", "unfold": "feat_unfold", "cell": "cell_decode"}

    def made(folder: Path) -> Made:
        network = tree(encoder=Edsr(4, 1))
        run = liif(network, 4, 8, 4, **switches)
        args = {words[key]: value for key, value in switches.items()}
        return brought(folder, network, run, "liif", args=args)

    return made


def _rdn_liif(folder: Path) -> Made:
    network = tree(encoder=Rdn(4, 2, 3, 5))
    return brought(folder, network, liif(network, 4, 8, 2), "liif")


def _metasr(folder: Path) -> Made:
    network = tree(encoder=Edsr(4, 1))
    return brought(folder, network, metasr(network, 4, 6, 3), "metasr")


def _lte(scale: int) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = tree(encoder=Edsr(4, 1))
        return brought(folder, network, lte(network, 4, 8, scale), "lte")

    return made


def _thera(size: str) -> Callable[[Path], Made]:
    """Air on RDN, the others on EDSR."""

    def made(folder: Path) -> Made:
        base = FlaxRdn(8, 2, 3, 5) if size == "air" else FlaxEdsr(8, 1)
        refine = {
            "air": None,
            "plus": FlaxConvNeXt([(8, 1), (12, 1)]),
            "pro": FlaxSwin(8, 12, [2], 2, 8),
        }[size]
        network = vary(thera(base, refine, 12 if size == "plus" else 8, 70))
        with torch.no_grad():
            network.k.fill_(0.06)
            # Phases of thousands of half turns would be noise.
            network.out_conv.weight.mul_(0.02)
        pickled(network, folder / "weights.pkl")
        run = heat_field(network)

        def at_three(image: Tensor) -> Tensor:
            return run(image, (3 * image.shape[2], 3 * image.shape[3]))

        return import_file(folder / "weights.pkl").network, at_three

    return made


def _hiif(folder: Path) -> Made:
    network = tree(encoder=Edsr(4, 1))
    return brought(folder, network, hiif(network, 4, 8, 2, 3, 2), "hiif")


def _msit(rim: bool) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        network = tree(encoder=Rdn(4, 1, 2, 3))
        return brought(folder, network, msit(network, 4, 8, 2, rim, 2), "amsit")

    return made


def _plain_edsr(network: Network) -> Run:
    encoder: Any = network.encoder

    def features(image: Tensor) -> Tensor:
        head = encoder.head((image - 0.5) / 0.5)
        x = head
        for block in encoder.body:
            x = x + block.conv2(functional.relu(block.conv1(x)))
        out: Tensor = head + encoder.tail(x)
        return out

    return features


def _encoded(u: Tensor, place: Tensor, scale: int, bands: int) -> Tensor:
    """The mean of the waves over a pixel of 1 / scale around ``u - place``, [length, 2 bands]."""
    waves = 2.0 ** torch.arange(bands) * math.pi
    damp = torch.sin(waves / (2 * scale)) / (waves / (2 * scale))
    turned = (u - place)[:, None] * waves
    return torch.cat([turned.sin() * damp, turned.cos() * damp], 1)


def _ipe_liif(folder: Path) -> Made:
    del folder
    scale, bands = 4, 4
    config = {
        "encoder": {"name": "edsr", "width": 8, "blocks": 1},
        "upsampler": {"name": "ipe-liif", "hidden": [8, 8], "bands": bands},
        "normalisation": {"mean": [0.5] * 3, "std": 0.5},
    }
    network = make(config)
    first, second, last = network.upsampler.layers  # type: ignore[union-attr,misc]
    features = _plain_edsr(network)

    def run(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        columns = functional.unfold(features(image), 3, padding=1).reshape(-1, height, width)
        u, v = positions(height, scale), positions(width, scale)
        total: Any = 0
        for dy in (0, 1):
            row = (u.floor() + dy).clamp(0, height - 1)
            for dx in (0, 1):
                col = (v.floor() + dx).clamp(0, width - 1)
                shape = (len(u), len(v), 2 * bands)
                x = torch.cat(
                    [
                        columns[:, row.long()][:, :, col.long()].permute(1, 2, 0),
                        _encoded(u, row, scale, bands)[:, None].expand(shape),
                        _encoded(v, col, scale, bands).expand(shape),
                    ],
                    -1,
                )
                y = functional.relu(first(x))
                y = last(functional.relu(second(torch.cat([y, x], -1))))
                near_y = u - u.floor() if dy else 1 - (u - u.floor())
                near_x = v - v.floor() if dx else 1 - (v - v.floor())
                total = total + y * (near_y[:, None] * near_x)[..., None]
        out: Tensor = total.permute(2, 0, 1)[None] * 0.5 + 0.5
        return out

    return network, run


def _ipe_metasr(folder: Path) -> Made:
    """MetaSR whose filters read the code of the output pixel, counted from its LR pixel."""
    del folder
    scale, bands = 3, 4
    config = {
        "encoder": {"name": "edsr", "width": 4, "blocks": 1},
        "upsampler": {"name": "ipe-metasr", "hidden": 8, "bands": bands},
        "normalisation": {"mean": [0.5] * 3, "std": 0.5},
    }
    network = make(config)
    features, filters = _plain_edsr(network), network.upsampler.mlp

    def run(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        columns = functional.unfold(features(image), 3, padding=1).reshape(-1, height, width)
        out = torch.zeros(1, 3, height * scale, width * scale)
        inside = (torch.arange(scale) + 0.5) / scale - 0.5
        codes = _encoded(inside, torch.zeros(scale), scale, bands)
        for a in range(scale):
            for b in range(scale):
                matrix = filters(torch.cat([codes[a], codes[b]])).reshape(-1, 3)  # type: ignore[operator]
                made = torch.einsum("khw,kc->chw", columns, matrix)
                out[0, :, a::scale, b::scale] = made
        return out * 0.5 + 0.5

    return network, run


CLASSICAL = ((16, 8), (11, 13), (5, 9))
"""For windows of 8: whole ones, and not."""
LARGER = ((16, 32), (19, 26), (9, 40))
"""For windows of 16."""

PUBLISHED: dict[str, Published] = {
    "edsr-x2": Published(_edsr((2,)), 2),
    "edsr-x3": Published(_edsr((3,)), 3),
    "edsr-x4": Published(_edsr((2, 2)), 4),
    "rdn-x4": Published(_rdn_fixed, 4),
    "edsr-igconv": Published(_igconv(lambda: BasicEdsr(4, 1), 4, False), 3),
    "edsr-igconv-plus": Published(_igconv(lambda: BasicEdsr(4, 1), 4, True), 3),
    "edsr-igconv-plus-beyond": Published(_beyond, 8),
    "rdn-igconv-plus": Published(_igconv(lambda: Rdn(4, 1, 2, 3), 4, True), 3),
    "rcan-igconv-plus": Published(_igconv(lambda: Rcan(6, 2, 2, 3), 6, True, max_s=8), 3),
    "smfanet-igconv": Published(
        _igconv(lambda: Smfanet(8, 1), 8, False), 3, ((8, 8), (11, 19), (16, 9))
    ),
    "swinir-x2": Published(_light(1, 8), 2, CLASSICAL),
    "swinir-x2-mirror": Published(
        _light(1, 8, mirrored, **{"encoder.padding": "mirror"}), 2, CLASSICAL
    ),
    "swinir-x2-test-script": Published(
        _light(1, 8, scripted, **{"encoder.padding": "test-script"}), 2, (*CLASSICAL, (3, 8))
    ),
    "swinir-x4-classical": Published(_classical, 4, CLASSICAL),
    "swinir-igconv-plus": Published(
        _igconv(lambda: Windowed(4, [2], 2, 8, 8, 1), 4, True, 8), 3, CLASSICAL
    ),
    "srformer-x2": Published(_light(2, 16), 2, LARGER),
    "srformer-igconv": Published(
        _igconv(lambda: Windowed(8, [2], 2, 6, 6, 2), 8, False, 6), 3, ((12, 6), (7, 11), (5, 8))
    ),
    "srformer-igconv-plus": Published(
        _igconv(lambda: Windowed(8, [2], 2, 22, 22, 2), 8, True, 22), 3, ((22, 44), (25, 30))
    ),
    "hit-sir-x2": Published(_hit(False), 2, ((32, 32), (35, 47), (21, 70), (20, 33))),
    "hit-srf-x2": Published(_hit(True), 2, ((32, 32), (35, 47), (21, 70), (20, 33))),
    "hit-srf-igconv-plus": Published(
        _igconv(lambda: HiT(20, 1, [4, 8, 16], 2, True), 20, True), 3, ((16, 16), (11, 21))
    ),
    "c2d-swinir-x2": Published(hiet("swinir"), 2, ((16, 16), (13, 37))),
    "c2d-srformer-x2": Published(hiet("srformer"), 2, ((16, 16), (13, 37))),
    "c2d-mambairv2-x2": Published(hiet("mambairv2"), 2, ((16, 16), (13, 37))),
    "mambairv2-x2": Published(mambairv2, 2, CLASSICAL),
    "eqsr": Published(_eqsr, 2, ((8, 8), (11, 10))),
    "edsr-liif": Published(_liif(), 4),
    "edsr-liif-e": Published(_liif(ensemble=False), 4),
    "edsr-liif-u": Published(_liif(unfold=False), 4),
    "edsr-liif-c": Published(_liif(cell=False), 4),
    "rdn-liif": Published(_rdn_liif, 2),
    "edsr-metasr": Published(_metasr, 3),
    "edsr-lte": Published(_lte(2), 2),
    "edsr-lte-beyond": Published(_lte(6), 6),
    "rdn-thera-air": Published(_thera("air"), 3),
    "edsr-thera-plus": Published(_thera("plus"), 3),
    "edsr-thera-pro": Published(_thera("pro"), 3, ((8, 16), (11, 13), (5, 9))),
    "edsr-hiif": Published(_hiif, 2, ((6, 5), (4, 7))),
    "rdn-msit": Published(_msit(False), 2, ((6, 5), (4, 4))),
    "rdn-msit-rim": Published(_msit(True), 2, ((6, 5), (4, 4))),
    "edsr-ipe-liif": Published(_ipe_liif, 4),
    "edsr-ipe-metasr": Published(_ipe_metasr, 3),
}
