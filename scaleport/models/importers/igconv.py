"""Files of the IGConv project (dslisleedh/IGConv): IGConv and IGConv+ behind several encoders."""

from __future__ import annotations

from dataclasses import replace

import torch

from scaleport.models.importers.convolutional import (
    EDSR_BASICSR,
    PLKSR,
    RCAN,
    RDN,
    SMFANET,
    WITHOUT_MEAN,
)
from scaleport.models.importers.layouts import (
    MEAN,
    Config,
    Layout,
    Part,
    Plan,
    find_encoder,
    join,
)
from scaleport.models.importers.liif import hidden_layers
from scaleport.models.importers.reading import Description, Refused, State, fit, size
from scaleport.models.importers.settings import Assumed
from scaleport.models.importers.windowed import ATD, HAT, HIT, MAMBAIR, SRFORMER, SWINIR

_ENCODERS = (EDSR_BASICSR, RDN, RCAN, SMFANET, HIT, SRFORMER, HAT, ATD, MAMBAIR, PLKSR, SWINIR)
_PLACES = ("upsample", "UPNet", "tail", "to_img", "to_rgb")
_SCALES = {"RCAN": (2, 3, 4, 8)}
_MAX_S = {"RCAN": 8}


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del description  # this project saves none
    encoder = find_encoder(state, "", _ENCODERS)
    place = next(name for name in _PLACES if f"{name}.query_kernel.0.weight" in state)
    plus = "skip.convs.freq" in state
    assumed = [Assumed("kernels are averaged over rotations and reflections")] if plus else []
    if scales is None:
        scales = _SCALES.get(encoder.title, (2, 3, 4))
        words = ", ".join(map(str, scales))
        text = f"trained on scales {words}; --scales sets others"
        assumed.append(Assumed(text, ("upsampler.scales",)))
    # What the kernels were trained with. More scales to render at do not move it.
    max_s = _MAX_S.get(encoder.title, 4)
    text = f"kernels read a scale of at most {max_s} (max_s), as published"
    assumed.append(Assumed(text, ("upsampler.max_s",)))
    rules = {
        f"{place}.freq": "freq",
        f"{place}.amplitude": "amplitude",
        f"{place}.phase.*": "phase.*",
        f"{place}.query_kernel.#.*": "mlp.#.*",
    }
    config: Config = {
        "name": "igconv-plus" if plus else "igconv",
        "scales": list(scales),
        "max_s": max_s,
        "latent": size(state, f"{place}.freq", 1, 4),
        "hidden_layers": len(hidden_layers(state, f"{place}.query_kernel", 4)),
    }
    if plus:
        rules |= {
            "skip.convs.freq": "sampler.freq",
            "skip.convs.amplitude": "sampler.amplitude",
            "skip.convs.phase.*": "sampler.phase.*",
            "skip.convs.query_kernel.#.*": "sampler.mlp.#.*",
        }
        last = sum(
            key.startswith("skip.convs.query_kernel.") and key.endswith(".weight") for key in state
        )
        config |= {
            "sample_latent": size(state, "skip.convs.freq", 1, 4),
            "sample_layers": last - 1,
        }
    upsampler = Part("IGConv+" if plus else "IGConv", config, rules, assumed=tuple(assumed))
    if encoder.title == "RCAN":
        upsampler = _with_colours(upsampler, state, f"{place}.query_kernel.{_last(config)}")
    norm = WITHOUT_MEAN.get(encoder.title, MEAN)
    return join(encoder, upsampler, norm, ("", ""), (1.0, float(max(scales))))


def _last(config: Config) -> int:
    return 2 * int(config["hidden_layers"])


def _with_colours(upsampler: Part, state: State, last: str) -> Part:
    """Put RCAN's trained ``add_mean``, a matrix of colours, into the layer that makes colours."""
    matrix = state["add_mean.weight"].double().flatten(1)
    for part, shape in (("weight", (3, size(state, f"{last}.weight", 1, 4))), ("bias", (3,))):
        if f"{last}.{part}" not in state:
            raise Refused(f"its decoder is not whole: missing are {last}.{part}")
        fit(f"{last}.{part}", state[f"{last}.{part}"], torch.empty(shape))

    def fold(state: State) -> State:
        folded = dict(state)
        weight, bias = state[f"{last}.weight"].double(), state[f"{last}.bias"].double()
        folded[f"{last}.weight"] = torch.einsum("oi,idyx->odyx", matrix, weight).float()
        folded[f"{last}.bias"] = (matrix @ bias).float()
        return folded

    return replace(upsampler, fold=fold)


IGCONV = Layout(
    "IGConv and IGConv+ behind EDSR, RDN, RCAN, SMFANet+, SwinIR, SRFormer, HiT-SR",
    "IGConv (dslisleedh/IGConv)",
    ("|".join(f"{place}.query_kernel.0.weight" for place in _PLACES),),
    _plan,
)
