"""Whole networks under the names that their papers give them.

A composition is only a configuration: any encoder goes with any upsampler, and these are the pairs
that were published, or that their parts make obvious.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

_EDSR_MEAN: Config = {"mean": [0.4488, 0.4371, 0.4040], "std": 1.0}
_HALF: Config = {"mean": [0.5, 0.5, 0.5], "std": 0.5}
_PLAIN: Config = {"mean": [0.0, 0.0, 0.0], "std": 1.0}
_THERA: Config = {"mean": [0.4488, 0.4371, 0.4040], "std": 0.5}


def _scales(largest: float) -> Config:
    return {"min": 1.0, "max": largest}


_REAL = _scales(30.0)
_TO_FOUR = _scales(4.0)

_ENCODERS: dict[str, Config] = {
    "edsr-baseline": {"name": "edsr"},
    "edsr-large": {"name": "edsr", "width": 256, "blocks": 32, "residual_scale": 0.1},
    "rdn": {"name": "rdn"},
    "rcan": {"name": "rcan"},
    "smfanet-plus": {"name": "smfanet-plus"},
    "swinir-light": {"name": "swinir"},
    "srformer-light": {"name": "srformer"},
    "hit-sir": {"name": "hit-sir"},
    "hit-srf": {"name": "hit-srf"},
    "mambairv2-light": {"name": "mambairv2"},
    "hiet-swinir": {"name": "hiet", "base": "swinir"},
    "hiet-srformer": {"name": "hiet", "base": "srformer"},
    "hiet-mambairv2": {"name": "hiet", "base": "mambairv2"},
    "eqsr": {"name": "eqsr", "octaves": 40, "scale_input": "size"},
    "edsr-plus": {"name": "refined-convnext", "base": {"name": "edsr"}},
    "edsr-pro": {"name": "refined-swin", "base": {"name": "edsr"}},
    "rdn-plus": {"name": "refined-convnext", "base": {"name": "rdn"}},
    "rdn-pro": {"name": "refined-swin", "base": {"name": "rdn"}},
}

_KRIGING: Config = {"name": "kriging", "octaves": 40}
_AIR: Config = {"name": "thera", "waves": 32}

# What makes an encoder small enough for a test, with every kind of part still in it. Windows keep
# their published sizes: how many of them an image has is what graphs go wrong with.
_SMALL_ENCODERS: dict[str, Config] = {
    "edsr": {"width": 8, "blocks": 1},
    "rdn": {"width": 8, "blocks": 2, "layers": 2, "growth": 8},
    "rcan": {"width": 16, "groups": 1, "blocks": 1},
    "smfanet-plus": {"width": 16, "blocks": 1},
    "swinir": {"width": 12, "depths": [2], "heads": 2},
    "srformer": {"width": 12, "depths": [2], "heads": 2},
    "hit-sir": {"width": 12, "blocks": 1, "windows": [8, 64], "heads": 2},
    "hit-srf": {"width": 12, "blocks": 1, "windows": [8, 64], "heads": 2},
    "mambairv2": {"width": 12, "depths": [2], "heads": 2, "window": 8},
    "hiet": {"width": 12, "blocks": 1, "windows": [64, 8, 64], "heads": 2},
    "eqsr": {"width": 12, "depths": [2], "heads": 2},
    "refined-convnext": {"stages": [[8, 1], [12, 1]]},
    "refined-swin": {"width": 12, "depths": [2], "heads": 2},
}
_SMALL_UPSAMPLERS: dict[str, Config] = {
    "igconv": {"latent": 16, "hidden_layers": 1},
    "igconv-plus": {"latent": 16, "hidden_layers": 1},
    "liif": {"hidden": [16, 16]},
    "ipe-liif": {"hidden": [16, 16]},
    "metasr": {"hidden": 16},
    "ipe-metasr": {"hidden": 16},
    "lte": {"width": 16, "hidden": [16, 16]},
    "hiif": {"width": 16, "levels": 3, "heads": 2, "attentions": 1},
    "hiif-light": {"width": 16, "levels": 3, "heads": 2},
    "msit": {"width": 16, "heads": 2, "branches": 4, "query_branches": 2, "hidden": [16, 16]},
    "kriging": {"width": 16, "groups": 4},
    "thera": {"waves": 70},
}


@dataclass(frozen=True)
class Composition:
    """A named pair of encoder and upsampler.

    Attributes:
        name: its name.
        paper: where it comes from, by arXiv number.
        config: what :func:`scaleport.models.build_network` takes.
    """

    name: str
    paper: str
    config: Config

    @property
    def small(self) -> Config:
        """The same network with the fewest layers and channels that still have every part."""
        encoder, upsampler = self.config["encoder"], self.config["upsampler"]
        small = {**encoder, **_SMALL_ENCODERS.get(encoder["name"], {})}
        base = small.get("base")
        if isinstance(base, dict):
            small["base"] = {**base, **_SMALL_ENCODERS.get(base["name"], {})}
        return {
            **self.config,
            "encoder": small,
            "upsampler": {**upsampler, **_SMALL_UPSAMPLERS.get(upsampler["name"], {})},
        }


def _named(
    name: str, paper: str, encoder: str, upsampler: Config | str, norm: Config, scale: Config
) -> Composition:
    tail = {"name": upsampler} if isinstance(upsampler, str) else upsampler
    parts = {"encoder": dict(_ENCODERS[encoder]), "upsampler": tail}
    return Composition(name, paper, {**parts, "normalisation": norm, "scale": scale})


_FIXED = (
    # name, paper, encoder, upsampler, normalisation
    ("edsr-baseline", "1707.02921", "edsr-baseline", "spconv-plus", _EDSR_MEAN),
    ("edsr-large", "1707.02921", "edsr-large", "spconv-plus", _EDSR_MEAN),
    ("rdn", "1802.08797", "rdn", "spconv-plus", _PLAIN),
    ("smfanet-plus", "2024 ECCV SMFANet", "smfanet-plus", "spconv", _PLAIN),
    ("swinir-light", "2108.10257", "swinir-light", "spconv", _EDSR_MEAN),
    ("srformer-light", "2303.09735", "srformer-light", "spconv", _EDSR_MEAN),
    ("hit-sir", "2407.05878", "hit-sir", "spconv", _EDSR_MEAN),
    ("hit-srf", "2407.05878", "hit-srf", "spconv", _EDSR_MEAN),
    ("mambairv2-light", "2411.15269", "mambairv2-light", "spconv", _EDSR_MEAN),
    ("c2d-swinir-light", "2503.13740", "hiet-swinir", "spconv", _HALF),
    ("c2d-srformer-light", "2503.13740", "hiet-srformer", "spconv", _HALF),
    ("c2d-mambairv2-light", "2503.13740", "hiet-mambairv2", "spconv", _HALF),
)
"""Networks of one scale each: x2, x3 and x4 of every line."""

_SEVERAL = (
    # encoder, normalisation
    ("edsr-baseline", _EDSR_MEAN),
    ("edsr-large", _EDSR_MEAN),
    ("rdn", _PLAIN),
    ("rcan", _EDSR_MEAN),
    ("smfanet-plus", _PLAIN),
    ("hit-srf", _EDSR_MEAN),
    ("swinir-light", _EDSR_MEAN),
    ("srformer-light", _EDSR_MEAN),
    ("mambairv2-light", _EDSR_MEAN),
)
"""Networks of several scales: IGConv and IGConv+ on every line's encoder."""

_ANY = (
    # name, paper, encoder, upsampler, normalisation, range of scales
    ("edsr-baseline-liif", "2012.09161", "edsr-baseline", "liif", _HALF, _REAL),
    ("rdn-liif", "2012.09161", "rdn", "liif", _HALF, _REAL),
    ("edsr-baseline-metasr", "1903.00875", "edsr-baseline", "metasr", _HALF, _REAL),
    ("rdn-metasr", "1903.00875", "rdn", "metasr", _HALF, _REAL),
    ("edsr-baseline-ipe-liif", "2112.05756", "edsr-baseline", "ipe-liif", _HALF, _REAL),
    ("rdn-ipe-liif", "2112.05756", "rdn", "ipe-liif", _HALF, _REAL),
    ("edsr-baseline-ipe-metasr", "2112.05756", "edsr-baseline", "ipe-metasr", _HALF, _REAL),
    ("rdn-ipe-metasr", "2112.05756", "rdn", "ipe-metasr", _HALF, _REAL),
    ("edsr-baseline-hiif", "2412.03748", "edsr-baseline", "hiif", _HALF, _REAL),
    ("rdn-hiif", "2412.03748", "rdn", "hiif", _HALF, _REAL),
    ("edsr-baseline-lte", "2111.08918", "edsr-baseline", "lte", _HALF, _REAL),
    ("rdn-lte", "2111.08918", "rdn", "lte", _HALF, _REAL),
    ("edsr-large-liif", "2012.09161", "edsr-large", "liif", _HALF, _REAL),
    ("msit-edsr", "2403.06536", "edsr-baseline", "msit", _HALF, _REAL),
    ("msit-rdn", "2403.06536", "rdn", "msit", _HALF, _REAL),
    # The first stage of C2D-ISR: trained at real scales, then the decoder is exchanged.
    ("c2d-swinir-light-stage1", "2503.13740", "hiet-swinir", "hiif-light", _HALF, _TO_FOUR),
    ("c2d-srformer-light-stage1", "2503.13740", "hiet-srformer", "hiif-light", _HALF, _TO_FOUR),
    ("c2d-mambairv2-light-stage1", "2503.13740", "hiet-mambairv2", "hiif-light", _HALF, _TO_FOUR),
    ("edsr-baseline-thera-air", "2311.17643", "edsr-baseline", _AIR, _THERA, _REAL),
    ("edsr-baseline-thera-plus", "2311.17643", "edsr-plus", "thera", _THERA, _REAL),
    ("edsr-baseline-thera-pro", "2311.17643", "edsr-pro", "thera", _THERA, _REAL),
    ("rdn-thera-air", "2311.17643", "rdn", _AIR, _THERA, _REAL),
    ("rdn-thera-plus", "2311.17643", "rdn-plus", "thera", _THERA, _REAL),
    ("rdn-thera-pro", "2311.17643", "rdn-pro", "thera", _THERA, _REAL),
    ("eqsr", "CVPR 2023 EQSR", "eqsr", _KRIGING, _EDSR_MEAN, _scales(8.0)),
)
"""Networks of any real scale."""


def _all() -> Iterable[Composition]:
    for s in (2, 3, 4):
        for name, paper, encoder, upsampler, norm in _FIXED:
            tail: Config = {"name": upsampler, "scale": s}
            yield _named(f"{name}-x{s}", paper, encoder, tail, norm, _scales(float(s)))
    for upsampler in ("igconv", "igconv-plus"):
        for encoder, norm in _SEVERAL:
            tail = {"name": upsampler, "scales": [2, 3, 4]}
            name = f"{encoder}-{upsampler}"
            yield _named(name, "2408.09674", encoder, tail, norm, _TO_FOUR)
    for line in _ANY:
        yield _named(*line)


COMPOSITIONS: dict[str, Composition] = {made.name: made for made in _all()}
"""All of them, by name."""
