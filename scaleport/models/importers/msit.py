"""Files of the MSIT project (Jinchen2028/MSIT), of its first stage (plain) and second (RIM)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scaleport.models.importers.layouts import (
    HALF,
    Constant,
    Layout,
    Part,
    Plan,
    check_description,
    join,
    same,
)
from scaleport.models.importers.liif import ANY_SCALE, ENCODER, find_liif_encoder, hidden_layers
from scaleport.models.importers.reading import Description, Refused, State, count, root, size
from scaleport.models.importers.rules import Rules
from scaleport.models.network import Network

_PUBLISHED = {
    "is_cell": True,
    "local_attn": True,
    "use_lem": True,
    "imnet_num": 1,
    "conv_num": 1,
    "pb_spec.posenc_type": "sinusoid",
    "pb_spec.posenc_scale": 10,
    "pb_spec.gamma": 1,
    "imnet_spec.act": "gelu",
}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _is_mask(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    del place
    operator: Any = network.upsampler.operator
    return same(value, operator.mask)


def _is_one(network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    del network, place
    return value.numel() == 1 and bool((value == 1).all())


def _refined(theirs: str, ours: str) -> Rules:
    """A convolution, refined or plain."""
    return {
        f"{theirs}.*": f"{ours}.*",
        f"{theirs}.convmap.weight": f"{ours}.filter",
        f"{theirs}.linear.weight": f"{ours}.factor",
    }


def _rules(branches: int, query_branches: int) -> Rules:
    rules: Rules = {
        "conv_ch.*": "expand.*",
        "amsno.v.*": "operator.value.*",
        "amsno.s.*": "operator.token.*",
        "amsno.sim0.*": "operator.mixing.inner.*",
        "amsno.sim1.*": "operator.mixing.outer.*",
        "amsno.proj.*": "operator.project.*",
        "multi_conv_qs.0.proj0.*": "query.spread.*",
        "multi_conv_qs.0.proj1.*": "query.mixing.inner.*",
        "multi_conv_qs.0.proj2.*": "query.mixing.outer.*",
        "pb_encoder.proj.*": "position.linear.*",
        "imnets.0.layers.#.*": "mlp.#.*",
    }
    for part in _NORM:
        rules[f"amsno.bn.{part}"] = f"operator.mixing.norm.{part}"
        rules[f"multi_conv_qs.0.bn.{part}"] = f"query.mixing.norm.{part}"
    for i in range(branches):
        rules |= _refined(f"amsno.Ms_conv_{i + 1}", f"operator.branches.{i}")
    for i in range(query_branches):
        rules |= _refined(f"multi_conv_qs.0.local_conv_{i + 1}", f"query.branches.{i}")
    return rules | _refined("conv_vs.0", "value")


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    check_description(description, ("amsit",), _PUBLISHED)
    width = size(state, "conv_ch.weight", 0, 4)
    inputs = size(state, "imnets.0.layers.0.weight", 1, 2)
    if inputs <= 2 or (inputs - 2) % width:
        raise Refused(f"its decoder takes {inputs} values, which are no window of {width} channels")
    branches = count(state, "amsno.Ms_conv_#.bias")
    query_branches = count(state, "multi_conv_qs.0.local_conv_#.bias")
    rim = "conv_vs.0.convmap.weight" in state
    config = {
        "name": "msit",
        "width": width,
        "heads": size(state, "pb_encoder.proj.weight", 0, 2),
        "radius": (root((inputs - 2) // width, "imnets.0.layers.0.weight") - 1) // 2,
        "branches": branches,
        "query_branches": query_branches,
        "hidden": hidden_layers(state, "imnets.0.layers"),
        "frequencies": size(state, "pb_encoder.proj.weight", 1, 2) // 4,
        "rim": rim,
    }
    constants = (
        Constant("amsno.lem.mask", "mask of the shifts, checked", _is_mask),
        Constant("amsno.lem.mix_margin", "distance of the shifts, checked", _is_one),
    )
    title = "MSIT (second stage, refined kernels)" if rim else "MSIT (first stage)"
    rules = _rules(branches, query_branches)
    encoder = find_liif_encoder(state, description)
    upsampler = Part(title, config, rules, constants)
    return join(encoder, upsampler, HALF, (ENCODER, ""), ANY_SCALE)


LAYOUT = Layout(
    "EDSR- or RDN-MSIT",
    "MSIT (Jinchen2028/MSIT)",
    ("conv_ch.weight", "amsno.proj.weight"),
    _plan,
)
