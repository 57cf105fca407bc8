"""Whole networks under the names that their papers give them.

A composition is only a configuration: any encoder goes with any upsampler, and these are the pairs
that were published, or that their parts make obvious.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

_EDSR_MEAN = {"mean": [0.4488, 0.4371, 0.4040], "std": 1.0}
_HALF = {"mean": [0.5, 0.5, 0.5], "std": 0.5}
_PLAIN = {"mean": [0.0, 0.0, 0.0], "std": 1.0}
_REAL = {"min": 1.0, "max": 30.0}

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
}

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
        return {
            **self.config,
            "encoder": {**encoder, **_SMALL_ENCODERS.get(encoder["name"], {})},
            "upsampler": {**upsampler, **_SMALL_UPSAMPLERS.get(upsampler["name"], {})},
        }


def _made(
    name: str, paper: str, encoder: str, upsampler: Config, norm: Config, scale: Config
) -> Composition:
    parts = {"encoder": dict(_ENCODERS[encoder]), "upsampler": upsampler}
    return Composition(name, paper, {**parts, "normalisation": norm, "scale": scale})


def _fixed_scale() -> Iterator[Composition]:
    papers = {
        "edsr-baseline": ("1707.02921", "spconv-plus"),
        "edsr-large": ("1707.02921", "spconv-plus"),
        "rdn": ("1802.08797", "spconv-plus"),
        "smfanet-plus": ("2024 ECCV SMFANet", "spconv"),
        "swinir-light": ("2108.10257", "spconv"),
        "srformer-light": ("2303.09735", "spconv"),
        "hit-sir": ("2407.05878", "spconv"),
        "hit-srf": ("2407.05878", "spconv"),
        "mambairv2-light": ("2411.15269", "spconv"),
    }
    for s in (2, 3, 4):
        for encoder, (paper, upsampler) in papers.items():
            norm = _PLAIN if encoder in ("rdn", "smfanet-plus") else _EDSR_MEAN
            tail = {"name": upsampler, "scale": s}
            limits = {"min": 1.0, "max": float(s)}
            yield _made(f"{encoder}-x{s}", paper, encoder, tail, norm, limits)
        for base in ("swinir", "srformer", "mambairv2"):
            yield _made(
                f"c2d-{base}-light-x{s}",
                "2503.13740",
                f"hiet-{base}",
                {"name": "spconv", "scale": s},
                _HALF,
                {"min": 1.0, "max": float(s)},
            )


def _multi_scale() -> Iterator[Composition]:
    for upsampler in ("igconv", "igconv-plus"):
        for encoder in ("edsr-baseline", "edsr-large", "rdn", "rcan", "smfanet-plus", "hit-srf"):
            norm = _PLAIN if encoder in ("rdn", "smfanet-plus") else _EDSR_MEAN
            tail = {"name": upsampler, "scales": [2, 3, 4]}
            limits = {"min": 1.0, "max": 4.0}
            yield _made(f"{encoder}-{upsampler}", "2408.09674", encoder, tail, norm, limits)
        for encoder in ("swinir-light", "srformer-light", "mambairv2-light"):
            tail = {"name": upsampler, "scales": [2, 3, 4]}
            limits = {"min": 1.0, "max": 4.0}
            yield _made(f"{encoder}-{upsampler}", "2408.09674", encoder, tail, _EDSR_MEAN, limits)


def _any_scale() -> Iterator[Composition]:
    heads = {
        "liif": "2012.09161",
        "metasr": "1903.00875",
        "ipe-liif": "2112.05756",
        "ipe-metasr": "2112.05756",
        "hiif": "2412.03748",
        "lte": "2111.08918",
    }
    for head, paper in heads.items():
        for encoder in ("edsr-baseline", "rdn"):
            yield _made(f"{encoder}-{head}", paper, encoder, {"name": head}, _HALF, _REAL)
    yield _made("edsr-large-liif", "2012.09161", "edsr-large", {"name": "liif"}, _HALF, _REAL)
    for name, encoder in (("msit-edsr", "edsr-baseline"), ("msit-rdn", "rdn")):
        yield _made(name, "2403.06536", encoder, {"name": "msit"}, _HALF, _REAL)
    for base in ("swinir", "srformer", "mambairv2"):
        # The first stage of C2D-ISR: trained at real scales, then the decoder is exchanged.
        yield _made(
            f"c2d-{base}-light-stage1",
            "2503.13740",
            f"hiet-{base}",
            {"name": "hiif-light"},
            _HALF,
            {"min": 1.0, "max": 4.0},
        )
    kriging = {"name": "kriging", "octaves": 40}
    yield _made("eqsr", "CVPR 2023 EQSR", "eqsr", kriging, _EDSR_MEAN, {"min": 1.0, "max": 8.0})


COMPOSITIONS: dict[str, Composition] = {
    made.name: made for made in (*_fixed_scale(), *_multi_scale(), *_any_scale())
}
"""All of them, by name."""
