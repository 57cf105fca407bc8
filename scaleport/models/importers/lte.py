"""LTE behind the encoders of the LIIF project."""

from __future__ import annotations

from scaleport.models.importers.layouts import HALF, Layout, Part, Plan, check_description, join
from scaleport.models.importers.liif import (
    ANY_SCALE,
    ENCODER,
    find_liif_encoder,
    hidden_layers,
)
from scaleport.models.importers.reading import Description, Refused, State, size
from scaleport.models.importers.settings import Assumed

TRAINED_TO = 4.0
"""Largest scale of the published training, where the cell stops shrinking."""


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    check_description(description, ("lte",), {})
    width = size(state, "coef.weight", 0, 4)
    if size(state, "imnet.layers.0.weight", 1, 2) != width:
        raise Refused("the width of its decoder does not fit its coefficients: not supported")
    config = {
        "name": "lte",
        "width": width,
        "hidden": hidden_layers(state, "imnet.layers"),
        "scale_max": TRAINED_TO,
    }
    rules = {
        "coef.*": "coefficient.*",
        "freq.*": "frequency.*",
        "phase.*": "phase.*",
        "imnet.layers.#.*": "mlp.#.*",
    }
    text = "trained on scales up to x4: beyond, the cell stays as at x4, as published"
    assumed = (Assumed(text, ("upsampler.scale_max",)),)
    upsampler = Part("LTE", config, rules, assumed=assumed)
    encoder = find_liif_encoder(state, description)
    return join(encoder, upsampler, HALF, (ENCODER, ""), ANY_SCALE)


LAYOUT = Layout(
    "EDSR- or RDN-LTE",
    "LTE (jaewon-lee-b/lte)",
    ("coef.weight", "freq.weight", "phase.weight", "imnet.layers.0.weight"),
    _plan,
)
