"""Encoders of attention in windows, as they are saved: SwinIR, SRFormer, HiT-SR, EQSR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scaleport.models.importers.layouts import Config, Constant, EncoderKeys, Part, same
from scaleport.models.importers.reading import Refused, State, count, counts, ratio, root, size
from scaleport.models.importers.rules import Rules
from scaleport.models.importers.settings import Assumed
from scaleport.models.network import Network

_BLOCK = "layers.#.residual_group.blocks.#"
_MASKED = -100.0

_FRAME = {
    "conv_first.*": "head.*",
    "patch_embed.norm.*": "head_norm.*",
    "layers.#.conv.*": "groups.#.tail.*",
    "norm.*": "norm.*",
    "conv_after_body.*": "tail.*",
}
_ATTENTION = {
    "norm1.*": "norm1.*",
    "norm2.*": "norm2.*",
    "attn.relative_position_bias_table": "attention.table",
    "attn.proj.*": "attention.proj.*",
    "mlp.fc1.*": "mlp.fc1.*",
    "mlp.fc2.*": "mlp.fc2.*",
}
_CONV_FFN = {"mlp.dwconv.depthwise_conv.0.*": "mlp.depthwise.*"}


def _blocks(inner: Rules) -> Rules:
    return {f"{_BLOCK}.{theirs}": f"groups.#.blocks.#.{ours}" for theirs, ours in inner.items()}


def _sizes(state: State, prefix: str) -> Config:
    """What all of them read off the same keys; ``window`` is that of the keys."""
    first = f"{prefix}layers.0.residual_group.blocks.0"
    width = size(state, f"{prefix}conv_first.weight", 0, 4)
    table = f"{first}.attn.relative_position_bias_table"
    return {
        "width": width,
        "depths": counts(state, f"{prefix}{_BLOCK}.norm1.weight"),
        "heads": size(state, table, 1, 2),
        "window": (root(size(state, table, 0, 2), table) + 1) // 2,
        "mlp_ratio": ratio(size(state, f"{first}.mlp.fc1.weight", 0, 2), width),
    }


def _is_index(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    group, block = place
    groups: Any = network.encoder.groups
    return same(value, groups[group].blocks[block].attention.places)


def _is_mask(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    del network, place
    return bool(((value == 0) | (value == _MASKED)).all())


def _constants(index: str) -> tuple[Constant, ...]:
    return (
        Constant(f"{_BLOCK}.attn.{index}", "tables of relative positions, checked", _is_index),
        Constant(f"{_BLOCK}.attn_mask", "masks for one image size, made here for any", _is_mask),
    )


_CONTINUED = Assumed(
    "images are continued to whole windows by reflection, as the authors' network does it",
    ("encoder.padding",),
)


def _swinir(state: State, prefix: str) -> Part:
    rules = _FRAME | _blocks(_ATTENTION | {"attn.qkv.*": "attention.qkv.*"})
    config = {"name": "swinir", **_sizes(state, prefix)}
    return Part("SwinIR", config, rules, _constants("relative_position_index"), (_CONTINUED,))


def _srformer(state: State, prefix: str) -> Part:
    inner = {"attn.q.*": "attention.q.*", "attn.kv.*": "attention.kv.*"}
    config = {"name": "srformer", **_sizes(state, prefix)}
    config["window"] *= 2  # a key stands for 2x2 pixels
    rules = _FRAME | _blocks(_ATTENTION | _CONV_FFN | inner)
    constants = _constants("aligned_relative_position_index")
    return Part("SRFormer", config, rules, constants, (_CONTINUED,))


def _hit(state: State, prefix: str) -> Part:
    first = f"{prefix}layers.0.residual_group.blocks"
    width = size(state, f"{prefix}conv_first.weight", 0, 4)
    layers = count(state, f"{first}.#.norm1.weight")
    keys = [f"{first}.{i}.correlation.spatial_linear.weight" for i in range(layers)]
    windows = _windows([root(size(state, key, 1, 2), key) for key in keys])
    convolutional = f"{first}.0.mlp.dwconv.depthwise_conv.0.weight" in state
    config = {
        "name": "hit-srf" if convolutional else "hit-sir",
        "width": width,
        "blocks": count(state, f"{prefix}layers.#.conv.weight"),
        "windows": windows,
        "heads": size(state, f"{first}.0.correlation.pos.pos3.2.weight", 0, 2),
        "mlp_ratio": ratio(size(state, f"{first}.0.mlp.fc1.weight", 0, 2), width),
    }
    inner = {
        "norm1.*": "norm1.*",
        "norm2.*": "norm2.*",
        "correlation.qv.conv.0.*": "correlation.features.reduce.*",
        "correlation.qv.conv.2.*": "correlation.features.conv.*",
        "correlation.qv.conv.4.*": "correlation.features.expand.*",
        "correlation.qv.linear.*": "correlation.features.linear.*",
        "correlation.proj.*": "correlation.project.*",
        "correlation.spatial_linear.*": "correlation.pool.*",
        "correlation.pos.pos_proj.*": "correlation.position.project.*",
        "mlp.fc1.*": "mlp.expand.*",
        "mlp.fc2.*": "mlp.reduce.*",
    }
    for i in range(3):
        inner[f"correlation.pos.pos{i + 1}.0.*"] = f"correlation.position.norms.{i}.*"
        inner[f"correlation.pos.pos{i + 1}.2.*"] = f"correlation.position.linears.{i}.*"
    if convolutional:
        inner |= _CONV_FFN
    rules = {
        "conv_first.*": "head.*",
        "patch_embed.norm.*": "norm1.*",
        "layers.#.conv.*": "blocks.#.conv.*",
        "norm.*": "norm2.*",
        "conv_after_body.*": "tail.*",
    }
    rules |= {f"{_BLOCK}.{theirs}": f"blocks.#.layers.#.{ours}" for theirs, ours in inner.items()}
    words = ", ".join(map(str, windows))
    text = f"windows of {words} pixels: weights do not tell those up to {_BASE} apart"
    assumed = (Assumed(text, ("encoder.windows",)),)
    return Part("HiT-SRF" if convolutional else "HiT-SIR", config, rules, assumed=assumed)


_BASE = 8


def _windows(pools: list[int]) -> list[int]:
    """Windows of a block's layers, from the side of the squares that are pooled to one key.

    Those of 8 pixels and smaller are not pooled; they are taken to double up to 8.
    """
    plain = sum(pool == 1 for pool in pools)
    if plain > _BASE.bit_length() or pools[:plain] != [1] * plain:
        raise Refused(f"its windows are unlike those of HiT-SR: pooled by {pools}")
    small = [_BASE >> (plain - 1 - i) for i in range(plain)]
    return small + [_BASE * pool for pool in pools[plain:]]


def _is_window_index(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    return _is_index(network, (0, 0, *place), value)


def _is_overlap_index(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    del place
    overlaps: Any = network.encoder.overlaps
    first = overlaps[0]
    rows = first.table.shape[0]
    # Negative ones count from the end.
    inside = bool(((value >= -rows) & (value < rows)).all())
    return inside and same(torch.remainder(value, rows), first.places)


def _eqsr(state: State, prefix: str) -> Part:
    style = size(state, f"{prefix}layers.0.residual_group.mbconv.net2.to_style.weight", 1, 2)
    config = {
        "name": "eqsr",
        **_sizes(state, prefix),
        "octaves": (style - 1) // 2,
        "scale_input": "size",
    }
    adapter = {
        "net1.*": "mix.*",
        "norm1.0.*": "norm1.*",
        "net2.*": "conv.*",
        "net2.to_style.*": "conv.style.*",
        "norm2.0.*": "norm2.*",
        "net3.0.gate.1.*": "squeeze.*",
        "net3.0.gate.3.*": "excite.*",
        "net3.1.*": "project.*",
    }
    overlap = {
        "relative_position_bias_table": "table",
        "norm1.*": "norm1.*",
        "norm2.*": "norm2.*",
        "qkv.*": "qkv.*",
        "proj.*": "proj.*",
        "mlp.fc1.*": "mlp.fc1.*",
        "mlp.fc2.*": "mlp.fc2.*",
    }
    group = "layers.#.residual_group"
    rules = _FRAME | _blocks(_ATTENTION | {"attn.qkv.*": "attention.qkv.*"})
    rules |= {f"{group}.mbconv.{theirs}": f"adapters.#.{ours}" for theirs, ours in adapter.items()}
    rules |= {
        f"{group}.overlap_attn.{theirs}": f"overlaps.#.{ours}" for theirs, ours in overlap.items()
    }
    why = "tables of relative positions, checked"
    constants = (
        Constant("relative_position_index_SA", why, _is_window_index),
        Constant("relative_position_index_OCA", why, _is_overlap_index),
    )
    assumed = Assumed(
        "the code is made of the output's height, as published", ("encoder.scale_input",)
    )
    return Part("EQSR", config, rules, constants, (assumed,))


_FIRST = "layers.0.residual_group.blocks.0"

HIT = EncoderKeys("HiT-SR", f"{_FIRST}.correlation.qv.conv.0.weight", _hit)
SRFORMER = EncoderKeys("SRFormer", f"{_FIRST}.attn.kv.weight", _srformer)
EQSR = EncoderKeys("EQSR", "layers.0.residual_group.mbconv.net1.weight", _eqsr)
SWINIR = EncoderKeys("SwinIR", f"{_FIRST}.attn.qkv.weight", _swinir)
HAT = EncoderKeys("HAT", f"{_FIRST}.conv_block.cab.0.weight")
ATD = EncoderKeys("ATD", "layers.0.residual_group.layers.0.attn_atd.wq.weight")
MAMBAIR = EncoderKeys("MambaIR (version 1)", f"{_FIRST}.self_attention.in_proj.weight")
WINDOWED = (HIT, SRFORMER, EQSR, HAT, ATD, MAMBAIR, SWINIR)
"""All of them, those that look like another one first."""
