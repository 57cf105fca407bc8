"""The published files, each at its own size with random weights, and what they are imported as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from authors import BasicEdsr, Edsr, Rcan, Rdn, Smfanet, conv, one_convolution, tree
from authors_decoders import hiif, igconv, liif, lte, metasr, msit
from authors_eqsr import Eqsr
from authors_thera import (
    FlaxConvNeXt,
    FlaxEdsr,
    FlaxRdn,
    FlaxSwin,
    heat_field,
    pickled,
    thera,
)
from authors_windowed import HiT, Windowed, continued
from torch import Tensor, nn

from scaleport.models.importers import Imported, import_file

Run = Callable[[Tensor], Tensor]
Built = tuple[Any, Run, int]
"""A module with the names of a file, its forward pass, and its scale."""
Wrap = Callable[[dict[str, Tensor]], Any]

LIIF, IGCONV = "LIIF (yinboc/liif)", "IGConv (dslisleedh/IGConv)"
EDSR_PYTORCH = "EDSR-PyTorch (thstkdgus35/EDSR-PyTorch)"
SWINIR, SRFORMER = "SwinIR (JingyunLiang/SwinIR)", "SRFormer (HVision-NKU/SRFormer)"
HITSR, EQSR, MSIT = "HiT-SR (XiangZ-0/HiT-SR)", "EQSR (neuralchen/EQSR)", "MSIT (Jinchen2028/MSIT)"
LTE, THERA = "LTE (jaewon-lee-b/lte)", "Thera (prs-eth/thera)"


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        project: whose it is.
        network: name of the network.
        build: makes its module.
        place: where the weights lie in the file; ``model.sd`` with the model's name and arguments,
            ``model.params`` in a pickle of a JAX program.
        size: of the image that it is compared at.
        name: of the model in the file.
        args: what the file says of it.
        gain: of a layer's weights, below 1 where hundreds of blocks add up.
    """

    project: str
    network: str
    build: Callable[[], Built]
    place: str = "params"
    size: tuple[int, int] = (8, 9)
    name: str = "liif"
    args: tuple[tuple[str, Any], ...] = ()
    gain: float = 1.0

    def wrap(self, state: dict[str, Tensor]) -> Any:
        """The content of the file."""
        if self.place == "model.sd":
            model = {"name": self.name, "args": dict(self.args), "sd": state}
            return {"model": model, "optimizer": {"name": "adam", "args": {"lr": 1e-4}}, "epoch": 9}
        return {self.place: state} if self.place else state


def spread(module: nn.Module, gain: float = 1.0) -> Any:
    """Random weights that keep signals near 1 over most depths; single numbers stay."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            if not value.requires_grad:
                continue
            noise = torch.rand(value.shape, generator=generator) - 0.5
            if value.dim() > 1:
                value.copy_(noise * 12**0.5 * gain * value[0].numel() ** -0.5)
            elif value.dim() == 1:
                value.copy_(noise * 0.2 + float(bool((value == 1).all())))
        for name in ("sub_mean", "add_mean"):
            # Trained mean shifts have not gone far.
            shift = getattr(module, name, None)
            if shift is not None and shift.weight.requires_grad:
                shift.weight.copy_(torch.eye(3)[:, :, None, None] + 0.1 * shift.weight)
    return module.eval()


def _pytorch(width: int, blocks: int, factors: tuple[int, ...]) -> Callable[[], Built]:
    def build() -> Built:
        network = Edsr(width, blocks, factors)
        scale = int(torch.tensor(factors).prod())
        if width == 256:
            network.residual = 0.1
        return network, network, scale

    return build


def _rdn() -> Any:
    return Rdn(64, 16, 8, 64)


def _edsr() -> Any:
    return Edsr(64, 16)


def _liif(encoder: Callable[[], Any], layers: int = 4, **switches: bool) -> Callable[[], Built]:
    def build() -> Built:
        network = tree(encoder=encoder())
        return network, liif(network, 64, 256, 2, layers, **switches), 2

    return build


def _metasr(encoder: Callable[[], Any]) -> Callable[[], Built]:
    def build() -> Built:
        network = tree(encoder=encoder())
        return network, metasr(network, 64, 256, 2), 2

    return build


def _fixed(encoder: Callable[[], Any]) -> Callable[[], Built]:
    def build() -> Built:
        inner = encoder()
        first, last = conv(64, 256), conv(64, 3)
        if isinstance(inner, Edsr):
            tail = inner.tail = nn.Sequential(nn.Sequential(first, nn.PixelShuffle(2)), last)
        else:
            tail = inner.UPNet = nn.Sequential(first, nn.PixelShuffle(2), last)

        def run(image: Tensor) -> Tensor:
            out: Tensor = tail(inner.features((image - 0.5) / 0.5)) * 0.5 + 0.5
            return out

        return tree(encoder=inner), run, 2

    return build


def _hiif(encoder: Callable[[], Any]) -> Callable[[], Built]:
    def build() -> Built:
        network = tree(encoder=encoder())
        return network, hiif(network, 64, 256, 16, 6, 2), 2

    return build


def _msit(encoder: Callable[[], Any], rim: bool) -> Callable[[], Built]:
    def build() -> Built:
        network = tree(encoder=encoder())
        run = msit(network, 64, 256, 8, rim, 2, 16, 4, 3, 16, (256,) * 4)
        return network, run, 2

    return build


def _lte(encoder: Callable[[], Any]) -> Callable[[], Built]:
    def build() -> Built:
        network = tree(encoder=encoder())
        return network, lte(network, 64, 256, 2), 2

    return build


def _thera(encoder: str, size: str) -> Callable[[], Built]:
    def build() -> Built:
        base = FlaxEdsr(64, 16) if encoder == "EDSR" else FlaxRdn(64, 16, 8, 64)
        refine = None
        if size == "Plus":
            refine = FlaxConvNeXt([(64, 6), (96, 7), (128, 3)])
        elif size == "Pro":
            refine = FlaxSwin(64, 180, [7, 6], 6, 8)
        waves, channels = 32 if size == "Air" else 512, 128 if size == "Plus" else 64
        network = thera(base, refine, channels, waves)
        run = heat_field(network)
        return network, lambda image: run(image, (2 * image.shape[2], 2 * image.shape[3])), 2

    return build


def _igconv(
    encoder: Callable[[], Any], width: int, plus: bool, window: int = 1, max_s: int = 4
) -> Callable[[], Built]:
    def build() -> Built:
        network = encoder()
        run = igconv(network, width, 2, plus, max_s, 256, 4)
        return network, continued(run, window) if window > 1 else run, 2

    return build


def _large() -> Any:
    network = BasicEdsr(256, 32)
    network.residual = 0.1
    return network


def _light(fold: int, window: int, scale: int) -> Callable[[], Built]:
    def build() -> Built:
        network = Windowed(60, [6] * 4, 6, window, 64 - 64 % window, fold)
        return network, continued(one_convolution(network, 60, scale), window), scale

    return build


def _classical(fold: int, window: int, scale: int) -> Callable[[], Built]:
    def build() -> Built:
        network: Any = Windowed(180, [6] * 6, 6, window, 2 * window, fold)
        network.conv_before_upsample = nn.Sequential(conv(180, 64), nn.LeakyReLU())
        factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        steps = [(conv(64, 64 * f * f), nn.PixelShuffle(f)) for f in factors]
        network.upsample = nn.Sequential(*(part for step in steps for part in step))
        network.conv_last = conv(64, 3)

        def run(image: Tensor) -> Tensor:
            y = network.conv_before_upsample(network.features(image - network.mean))
            out: Tensor = network.conv_last(network.upsample(y)) + network.mean
            return out

        return network, continued(run, window), scale

    return build


_HIT_WINDOWS = [4, 8, 16, 32, 48, 64]


def _hit(extra: bool, scale: int) -> Callable[[], Built]:
    def build() -> Built:
        network = HiT(60, 4, _HIT_WINDOWS, 6, extra)
        return network, one_convolution(network, 60, scale), scale

    return build


def _hit_srf() -> Any:
    return HiT(60, 4, _HIT_WINDOWS, 6, True)


def _eqsr() -> Built:
    network = Eqsr(180, [4] * 6, 6, 16, 16, 256, 32, 40)
    return network, lambda image: network.whole(image, 2), 2


def _srformer() -> Any:
    return Windowed(180, [6] * 6, 6, 22, 44, 2)


def _swinir() -> Any:
    return Windowed(180, [6] * 6, 6, 8, 64, 1)


def _from_liif(network: str, build: Callable[[], Built], name: str = "liif", **args: Any) -> File:
    return File(LIIF, network, build, "model.sd", (5, 6), name, tuple(args.items()))


def _of_igconv(
    network: str, encoder: Callable[[], Any], width: int, plus: bool, window: int = 1, **more: Any
) -> File:
    size, gain = more.pop("size", (9, 11)), more.pop("gain", 1.0)
    title = f"{network}-IGConv+" if plus else f"{network}-IGConv"
    return File(
        IGCONV, title, _igconv(encoder, width, plus, window, **more), "params_ema", size, gain=gain
    )


FILES: tuple[File, ...] = (
    _from_liif("EDSR-baseline-LIIF", _liif(_edsr)),
    _from_liif("EDSR-baseline-LIIF, no cell", _liif(_edsr, cell=False), cell_decode=False),
    _from_liif(
        "EDSR-baseline-LIIF, no ensemble", _liif(_edsr, ensemble=False), local_ensemble=False
    ),
    _from_liif("EDSR-baseline-LIIF, no unfolding", _liif(_edsr, unfold=False), feat_unfold=False),
    _from_liif("EDSR-baseline-LIIF, 2 hidden layers", _liif(_edsr, 2)),
    _from_liif("EDSR-baseline-MetaSR", _metasr(_edsr), "metasr"),
    _from_liif("EDSR-baseline-x2", _fixed(_edsr)),
    _from_liif("RDN-LIIF", _liif(_rdn)),
    _from_liif("RDN-MetaSR", _metasr(_rdn), "metasr"),
    _from_liif("RDN-x2", _fixed(_rdn)),
    File("HIIF", "EDSR-baseline-HIIF", _hiif(_edsr), "model.sd", (5, 4), "hiif"),
    File("HIIF", "RDN-HIIF", _hiif(_rdn), "model.sd", (5, 4), "hiif"),
    *(
        File(
            MSIT,
            f"{title}-MSIT ({'second stage, refined kernels' if rim else 'first stage'})",
            _msit(encoder, rim),
            "model.sd",
            (3, 4),
            "amsit",
        )
        for title, encoder in (("EDSR-baseline", _edsr), ("RDN", _rdn))
        for rim in (False, True)
    ),
    File(LTE, "EDSR-baseline-LTE", _lte(_edsr), "model.sd", (5, 6), "lte"),
    File(LTE, "RDN-LTE", _lte(_rdn), "model.sd", (5, 6), "lte"),
    *(
        File(THERA, f"{encoder}-Thera-{size}", _thera(encoder, size), "model.params", (9, 11))
        for encoder in ("EDSR", "RDN")
        for size in ("Air", "Plus", "Pro")
    ),
    *(_of_igconv("EDSR-baseline", lambda: BasicEdsr(64, 16), 64, plus) for plus in (False, True)),
    *(_of_igconv("EDSR large", _large, 256, plus, size=(5, 4)) for plus in (False, True)),
    *(_of_igconv("HiT-SRF", _hit_srf, 60, plus, size=(33, 35)) for plus in (False, True)),
    _of_igconv("RCAN", lambda: Rcan(64, 10, 20, 4), 64, True, max_s=8, gain=0.5),
    *(_of_igconv("RDN", _rdn, 64, plus) for plus in (False, True)),
    *(_of_igconv("SMFANet+", lambda: Smfanet(48, 12), 48, plus) for plus in (False, True)),
    *(_of_igconv("SRFormer", _srformer, 180, plus, 22, size=(23, 25)) for plus in (False, True)),
    _of_igconv("SwinIR", _swinir, 180, True, 8),
    File(EQSR, "EQSR", _eqsr, "params_ema", (12, 16)),
    *(
        File(HITSR, f"HiT-{name}-x{scale}", _hit(extra, scale), "params", (33, 35))
        for name, extra in (("SIR", False), ("SRF", True))
        for scale in (2, 3, 4)
    ),
    *(File(SWINIR, f"SwinIR-light-x{s}", _light(1, 8, s), "params") for s in (2, 3, 4)),
    *(File(SWINIR, f"SwinIR-x{s}", _classical(1, 8, s), "params") for s in (2, 3, 4, 8)),
    *(
        File(SRFORMER, f"SRFormer-light-x{s}", _light(2, 16, s), "params", (9, 17))
        for s in (2, 3, 4)
    ),
    *(
        File(SRFORMER, f"SRFormer-x{s}", _classical(2, 24, s), "params", (13, 25))
        for s in (2, 3, 4)
    ),
    *(
        File(EDSR_PYTORCH, f"{name}-x{s}", _pytorch(width, blocks, factors), "", (5, 4))
        for name, width, blocks in (("EDSR-baseline", 64, 16), ("EDSR large", 256, 32))
        for s, factors in ((2, (2,)), (3, (3,)), (4, (2, 2)))
    ),
)
"""All of them, in the order of docs/importing.md."""


def row(file: File, module: nn.Module, found: Imported) -> str:
    """The line of a file in docs/importing.md."""
    ours = found.network.parameter_count()
    theirs = sum(value.numel() for value in module.parameters())
    keys, unused = len(module.state_dict()), sum(found.unused.values())
    numbers = (f"{count:,}".replace(",", " ") for count in (ours, theirs - ours))
    place = f"`{file.place}`" if file.place else "the file itself"
    cells = (file.project, file.network, place, keys, unused, *numbers)
    return f"| {' | '.join(map(str, cells))} |"


def bring(file: File, folder: Path) -> tuple[nn.Module, Run, int, Imported]:
    """Write the file, import it."""
    module, run, scale = file.build()
    spread(module, file.gain)
    path = folder / ("weights.pkl" if file.place == "model.params" else "weights.pth")
    if file.place == "model.params":
        pickled(module, path)
    else:
        torch.save(file.wrap(module.state_dict()), path)
    found = import_file(path)
    path.unlink()
    return module, run, scale, found
