"""Thera: its published files are pickles of a JAX program, see :mod:`.flax`."""

from __future__ import annotations

import math
from dataclasses import replace

from scaleport.models.importers.layouts import (
    EDSR_MEAN,
    Config,
    Fold,
    Layout,
    Part,
    Plan,
    check_description,
    join,
)
from scaleport.models.importers.reading import (
    Description,
    Refused,
    State,
    count,
    counts,
    ratio,
    root,
    size,
)
from scaleport.models.importers.rules import Rules, prefixed

_ANY_SCALE = (1.0, 30.0)
_NORMALISATION: Config = {"mean": list(EDSR_MEAN), "std": 0.5}
_BLOCK = "RSTB_#.BasicLayer_0.SwinTransformerBlock_#"

_CONVNEXT: Rules = {
    "layers_#.residual.layers_0.*": "#.depthwise.*",
    "layers_#.residual.layers_1.*": "#.norm.*",
    "layers_#.residual.layers_2.*": "#.fc1.*",
    "layers_#.residual.layers_4.*": "#.fc2.*",
    "layers_#.LayerNorm_0.*": "#.norm.*",
    "layers_#.Conv_0.*": "#.linear.*",
}
_SWIN: Rules = {
    "Conv_0.*": "head.*",
    "PatchEmbed_0.LayerNorm_0.*": "head_norm.*",
    "RSTB_#.Conv_0.*": "groups.#.tail.*",
    "LayerNorm_0.*": "norm.*",
    "Conv_1.*": "tail.*",
    "Conv_2.*": "last.*",
    f"{_BLOCK}.LayerNorm_0.*": "groups.#.blocks.#.norm1.*",
    f"{_BLOCK}.LayerNorm_1.*": "groups.#.blocks.#.norm2.*",
    f"{_BLOCK}.WindowAttention_0.relative_position_bias_table": "groups.#.blocks.#.attention.table",
    f"{_BLOCK}.WindowAttention_0.qkv.*": "groups.#.blocks.#.attention.qkv.*",
    f"{_BLOCK}.WindowAttention_0.proj.*": "groups.#.blocks.#.attention.proj.*",
    f"{_BLOCK}.Mlp_0.Dense_0.*": "groups.#.blocks.#.mlp.fc1.*",
    f"{_BLOCK}.Mlp_0.Dense_1.*": "groups.#.blocks.#.mlp.fc2.*",
}


def _standardised(key: str) -> Fold:
    """Their images are divided by ``sqrt(1/4 + 1e-5)``, their fields multiplied by ``1/2``.

    The first layer, of which ``key`` is the weight, takes the difference over.
    """

    def fold(state: State) -> State:
        weight = state[key].double() * (0.5 / math.sqrt(0.25 + 1e-5))
        return {**state, key: weight.to(state[key].dtype)}

    return fold


def _edsr(state: State) -> Part:
    blocks = count(state, "encoder.body.layers_#.body.layers_0.weight")
    width = size(state, "encoder.head.layers_0.weight", 0, 4)
    rules = {
        "head.layers_0.*": "head.*",
        f"body.layers_{blocks}.*": "tail.*",
        "body.layers_#.body.layers_0.*": "body.#.conv1.*",
        "body.layers_#.body.layers_2.*": "body.#.conv2.*",
    }
    config = {"name": "edsr", "width": width, "blocks": blocks}
    return Part("EDSR", config, rules, fold=_standardised("encoder.head.layers_0.weight"))


def _rdn(state: State) -> Part:
    config = {
        "name": "rdn",
        "width": size(state, "encoder.Conv_0.weight", 0, 4),
        "blocks": count(state, "encoder.RDB_#.Conv_0.weight"),
        "layers": count(state, "encoder.RDB_0.RDB_Conv_#.Conv_0.weight"),
        "growth": size(state, "encoder.RDB_0.RDB_Conv_0.Conv_0.weight", 0, 4),
    }
    rules = {
        "Conv_0.*": "head.*",
        "Conv_1.*": "head2.*",
        "Conv_2.*": "fuse.*",
        "Conv_3.*": "tail.*",
        "RDB_#.RDB_Conv_#.Conv_0.*": "body.#.layers.#.*",
        "RDB_#.Conv_0.*": "body.#.fuse.*",
    }
    return Part("RDN", config, rules, fold=_standardised("encoder.Conv_0.weight"))


def _convnext(state: State) -> Config:
    stages: list[list[int]] = []
    layers = count(state, "refine.layers_#.residual.layers_0.weight")
    layers += count(state, "refine.layers_#.Conv_0.weight")
    for number in range(layers):
        if f"refine.layers_{number}.Conv_0.weight" in state:
            stages.append([size(state, f"refine.layers_{number}.Conv_0.weight", 0, 4), 0])
        elif not stages:
            key = f"refine.layers_{number}.residual.layers_0.weight"
            stages.append([size(state, key, 0, 4), 1])
        else:
            stages[-1][1] += 1
    return {"name": "refined-convnext", "stages": stages}


def _swin(state: State) -> Config:
    first = "refine.RSTB_0.BasicLayer_0.SwinTransformerBlock_0"
    table = f"{first}.WindowAttention_0.relative_position_bias_table"
    width = size(state, "refine.Conv_0.weight", 0, 4)
    return {
        "name": "refined-swin",
        "width": width,
        "depths": counts(state, f"refine.{_BLOCK}.LayerNorm_0.weight"),
        "heads": size(state, table, 1, 2),
        "window": (root(size(state, table, 0, 2), table) + 1) // 2,
        "mlp_ratio": ratio(size(state, f"{first}.Mlp_0.Dense_0.weight", 0, 2), width),
    }


def _refined(state: State, base: Part) -> tuple[Part, str]:
    """The encoder with what refines its features, and the word of the paper for that."""
    if not any(key.startswith("refine.") for key in state):
        return replace(base, rules=prefixed(base.rules, "encoder.", "")), "Air"
    if "refine.layers_0.residual.layers_0.weight" in state:
        config, rules, word = _convnext(state), _CONVNEXT, "Plus"
    elif "refine.Conv_0.weight" in state:
        config, rules, word = _swin(state), _SWIN, "Pro"
    else:
        raise Refused("what refines its features is of no known kind")
    both = prefixed(base.rules, "encoder.", "base.") | prefixed(rules, "refine.", "refiner.")
    return replace(base, config={**config, "base": base.config}, rules=both), word


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    check_description(description, ("thera",), {})
    waves = size(state, "components", 1, 2)
    if size(state, "out_conv.weight", 0, 4) != 4 * waves:
        raise Refused(f"its last layer does not make the fields of {waves} waves")
    base = _edsr(state) if "encoder.head.layers_0.weight" in state else _rdn(state)
    encoder, word = _refined(state, base)
    rules = {"out_conv.*": "field.*", "components": "components", "k": "diffusivity"}
    upsampler = Part(f"Thera-{word}", {"name": "thera", "waves": waves}, rules)
    return join(encoder, upsampler, _NORMALISATION, ("", ""), _ANY_SCALE)


LAYOUT = Layout(
    "EDSR- or RDN-Thera",
    "Thera (prs-eth/thera)",
    ("components", "out_conv.weight", "encoder.head.layers_0.weight|encoder.Conv_0.weight"),
    _plan,
)
"""Files of ``prs-eth/thera``: Air, Plus and Pro, with EDSR or RDN."""
