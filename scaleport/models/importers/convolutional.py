"""Encoders made of convolutions, as they are saved: EDSR, RDN, RCAN and SMFANet+."""

from __future__ import annotations

import torch

from scaleport.models.importers.layouts import (
    PLAIN,
    Constant,
    EncoderKeys,
    Part,
)
from scaleport.models.importers.reading import Refused, State, count, counts, fit, ratio, size
from scaleport.models.importers.rules import Rules
from scaleport.models.importers.settings import Assumed


def edsr_config(width: int, blocks: int) -> tuple[dict[str, object], Assumed]:
    """Configuration of an EDSR, and what is assumed of it."""
    scale = 0.1 if (width, blocks) == (256, 32) else 1.0
    config = {"name": "edsr", "width": width, "blocks": blocks, "residual_scale": scale}
    text = f"residual scale {scale:g}, as published for {width} channels, {blocks} blocks"
    return config, Assumed(text, ("encoder.residual_scale",))


def _edsr(state: State, prefix: str) -> Part:
    """EDSR of EDSR-PyTorch, and of the projects that took it over."""
    width = size(state, f"{prefix}head.0.weight", 0, 4)
    blocks = count(state, f"{prefix}body.#.body.0.weight")
    config, assumed = edsr_config(width, blocks)
    rules = {
        "head.0.*": "head.*",
        f"body.{blocks}.*": "tail.*",
        "body.#.body.0.*": "body.#.conv1.*",
        "body.#.body.2.*": "body.#.conv2.*",
    }
    return Part("EDSR", config, rules, assumed=(assumed,))


def _edsr_basicsr(state: State, prefix: str) -> Part:
    """EDSR of BasicSR."""
    width = size(state, f"{prefix}conv_first.weight", 0, 4)
    config, assumed = edsr_config(width, count(state, f"{prefix}body.#.conv1.weight"))
    rules = {
        "conv_first.*": "head.*",
        "conv_after_body.*": "tail.*",
        "body.#.conv1.*": "body.#.conv1.*",
        "body.#.conv2.*": "body.#.conv2.*",
    }
    return Part("EDSR", config, rules, assumed=(assumed,))


def _rdn(state: State, prefix: str) -> Part:
    blocks = count(state, f"{prefix}RDBs.#.LFF.weight")
    config = {
        "name": "rdn",
        "width": size(state, f"{prefix}SFENet1.weight", 0, 4),
        "blocks": blocks,
        "layers": count(state, f"{prefix}RDBs.0.convs.#.conv.0.weight"),
        "growth": size(state, f"{prefix}RDBs.0.convs.0.conv.0.weight", 0, 4),
    }
    rules = {
        "SFENet1.*": "head.*",
        "SFENet2.*": "head2.*",
        "RDBs.#.convs.#.conv.0.*": "body.#.layers.#.*",
        "RDBs.#.LFF.*": "body.#.fuse.*",
        "GFF.0.*": "fuse.*",
        "GFF.1.*": "tail.*",
    }
    return Part("RDN", config, rules)


def _rcan(state: State, prefix: str) -> Part:
    """RCAN of the IGConv project, whose mean shifts were trained along.

    What goes in, ``W x + b``, is ``W (x - a + shift)`` with the mean ``a`` that is added at the
    end, so that the head takes over ``W``.
    """
    width = size(state, f"{prefix}body.0.body.0.body.0.weight", 0, 4)
    inner = counts(state, f"{prefix}body.#.body.#.body.0.weight")
    groups, blocks = len(inner), inner[0]
    if size(state, f"{prefix}head.0.weight", 1, 4) != 3:
        raise Refused(f"{prefix}head.0.weight takes no colours")
    hidden = size(state, f"{prefix}body.0.body.0.body.3.conv_du.0.weight", 0, 4)
    shift, mean = _input_shift(state, prefix)
    moved = bool(shift.abs().max() > 0)
    config = {
        "name": "rcan",
        "width": width,
        "groups": groups,
        "blocks": blocks,
        "reduction": width // hidden,
        "shift": moved,
    }
    rules: Rules = {
        "head.0.*": "head.*",
        "body.#.body.#.body.0.*": "groups.#.blocks.#.conv1.*",
        "body.#.body.#.body.2.*": "groups.#.blocks.#.conv2.*",
        "body.#.body.#.body.3.conv_du.0.*": "groups.#.blocks.#.attention.down.*",
        "body.#.body.#.body.3.conv_du.2.*": "groups.#.blocks.#.attention.up.*",
        f"body.#.body.{blocks}.*": "groups.#.tail.*",
        f"body.{groups}.*": "tail.*",
    }
    if moved:
        rules["shift"] = "shift"

    def fold(state: State) -> State:
        folded = dict(state)
        key = f"{prefix}head.0.weight"
        matrix = state[f"{prefix}sub_mean.weight"].double().flatten(1)
        head = state[key].double()
        folded[key] = torch.einsum("ojyx,ji->oiyx", head, matrix).float()
        if moved:
            folded[f"{prefix}shift"] = shift.float()
        return folded

    why = "mean shifts, folded into the normalisation and the layers next to them"
    constants = (Constant("sub_mean.*", why), Constant("add_mean.*", why))
    normalisation = {"mean": mean.tolist(), "std": 1.0}
    return Part("RCAN", config, rules, constants, (), normalisation, fold)


def _input_shift(state: State, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What the trained mean shifts add to the input, and to the output, in pixels."""
    shapes = {"weight": (3, 3, 1, 1), "bias": (3,)}
    for name in ("sub_mean", "add_mean"):
        for part, shape in shapes.items():
            key = f"{prefix}{name}.{part}"
            if key not in state:
                raise Refused(f"it is not a whole RCAN: missing are {key}")
            fit(key, state[key], torch.empty(shape))
    matrix = state[f"{prefix}sub_mean.weight"].double().flatten(1)
    bias = state[f"{prefix}sub_mean.bias"].double()
    mean = state[f"{prefix}add_mean.bias"].double()
    try:
        shift = mean + torch.linalg.solve(matrix, bias)
    except RuntimeError as error:  # singular
        raise Refused(f"{prefix}sub_mean.weight loses colours") from error
    # Rounding of what was never trained is no shift.
    return torch.where(shift.abs() > 1e-6, shift, torch.zeros_like(shift)), mean


def _smfanet(state: State, prefix: str) -> Part:
    width = size(state, f"{prefix}to_feat.weight", 0, 4)
    hidden = size(state, f"{prefix}feats.0.pcfn.conv_0.weight", 0, 4)
    config = {
        "name": "smfanet-plus",
        "width": width,
        "blocks": count(state, f"{prefix}feats.#.smfa.alpha"),
        "ratio": ratio(hidden, width),
    }
    inner = {
        "smfa.alpha": "modulation.alpha",
        "smfa.belt": "modulation.beta",
        "smfa.linear_0.*": "modulation.split.*",
        "smfa.linear_1.*": "modulation.gate.*",
        "smfa.linear_2.*": "modulation.fuse.*",
        "smfa.dw_conv.*": "modulation.coarse.*",
        "smfa.lde.conv_0.0.*": "modulation.local1.*",
        "smfa.lde.conv_0.1.*": "modulation.local2.*",
        "smfa.lde.conv_1.*": "modulation.local3.*",
        "pcfn.conv_0.*": "ffn.up.*",
        "pcfn.conv_1.*": "ffn.near.*",
        "pcfn.conv_2.*": "ffn.down.*",
    }
    rules = {"to_feat.*": "head.*"}
    rules |= {f"feats.#.{theirs}": f"blocks.#.{ours}" for theirs, ours in inner.items()}
    return Part("SMFANet+", config, rules)


EDSR = EncoderKeys("EDSR", "body.0.body.0.weight", _edsr)
EDSR_BASICSR = EncoderKeys("EDSR", "body.0.conv1.weight", _edsr_basicsr)
RDN = EncoderKeys("RDN", "SFENet1.weight", _rdn)
RCAN = EncoderKeys("RCAN", "body.0.body.0.body.3.conv_du.0.weight", _rcan)
SMFANET = EncoderKeys("SMFANet+", "feats.0.smfa.alpha", _smfanet)
PLKSR = EncoderKeys("PLKSR", "feats.1.lk.conv.weight")

WITHOUT_MEAN = {"RDN": PLAIN, "SMFANet+": PLAIN}
"""Normalisation of the encoders that the IGConv project gives images as they are."""
