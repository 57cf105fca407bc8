"""Files of the LIIF project (yinboc/liif): LIIF, MetaSR, and its networks of one fixed scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scaleport.models.importers.convolutional import EDSR, RDN
from scaleport.models.importers.layouts import (
    HALF,
    Constant,
    Layout,
    Part,
    Plan,
    check_description,
    find_encoder,
    join,
)
from scaleport.models.importers.reading import (
    Description,
    Refused,
    State,
    count,
    mapping,
    none,
    size,
)
from scaleport.models.importers.rules import Rules
from scaleport.models.importers.settings import Assumed

ENCODER = "encoder."
ANY_SCALE = (1.0, 30.0)
_UNCALLED = "mean shifts that are saved and never called"


def find_liif_encoder(state: State, description: Description) -> Part:
    """EDSR or RDN as this project saves them, with what the file says of them."""
    part = find_encoder(state, ENCODER, (EDSR, RDN))
    constants = tuple(Constant(f"{name}_mean.*", _UNCALLED) for name in ("sub", "add"))
    config, assumed, told = dict(part.config), part.assumed, part.told
    spec = mapping(mapping(description, "args"), "encoder_spec")
    given = mapping(spec, "args").get("res_scale")
    if given is not None and config["name"] == "edsr":
        config["residual_scale"], assumed = given, ()
        told = ("encoder.residual_scale",)
    return Part(part.title, config, part.rules, constants, assumed, told=told)


def hidden_layers(state: State, prefix: str, rank: int = 2) -> list[int]:
    """Hidden widths of an MLP whose layers alternate with activations."""
    layers = count(state, f"{prefix}.#.weight")
    keys = [f"{prefix}.{2 * i}.{part}" for i in range(layers) for part in ("weight", "bias")]
    none("its decoder is not whole: missing are", set(keys) - set(state))
    return [size(state, key, 0, rank) for key in keys[:-2:2]]


def _plan(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    encoder = find_liif_encoder(state, description)
    if size(state, "imnet.layers.0.weight", 1, 2) == 3:
        check_description(description, ("metasr",), {})
        upsampler = _metasr(state)
    else:
        check_description(description, ("liif",), {})
        upsampler = _liif(state, encoder.config["width"], mapping(description, "args"))
    return join(encoder, upsampler, HALF, (ENCODER, ""), ANY_SCALE)


def _metasr(state: State) -> Part:
    config = {"name": "metasr", "hidden": size(state, "imnet.layers.0.weight", 0, 2)}
    return Part("MetaSR", config, {"imnet.layers.#.*": "mlp.#.*"})


_SWITCHES = {"local_ensemble": "ensemble", "feat_unfold": "unfold", "cell_decode": "cell"}
_WORDS = {"ensemble": "local ensemble", "unfold": "feature unfolding", "cell": "cell decoding"}


def _liif(state: State, width: int, args: Mapping[str, Any]) -> Part:
    """LIIF, and its ablations: two of the three are seen in the width of its first layer."""
    hidden = hidden_layers(state, "imnet.layers")
    found, said = _switches(state, width, args)
    switches = {"ensemble": said.get("ensemble", True), **found}
    assumed: tuple[Assumed, ...] = ()
    if "ensemble" not in said:
        text = "the four pixels around a position predict it (local ensemble), as published"
        assumed = (Assumed(text, ("upsampler.ensemble",)),)
    # Only what differs, so that a plain LIIF is configured as ever.
    config = {"name": "liif", "hidden": hidden, **{k: v for k, v in switches.items() if not v}}
    without = [word for ours, word in _WORDS.items() if not switches[ours]]
    title = f"LIIF without {', '.join(without)}" if without else "LIIF"
    told = () if assumed else ("upsampler.ensemble",)
    return Part(title, config, {"imnet.layers.#.*": "mlp.#.*"}, assumed=assumed, told=told)


def _switches(
    state: State, width: int, args: Mapping[str, Any]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """The switches that the first layer shows, and those that the file states.

    Raises:
        Refused: if they contradict each other, or the layer is no LIIF's.
    """
    inputs = size(state, "imnet.layers.0.weight", 1, 2)
    variants = {
        (9 if unfold else 1) * width + (4 if cell else 2): {"unfold": unfold, "cell": cell}
        for unfold in (True, False)
        for cell in (True, False)
    }
    if inputs not in variants:
        wanted = ", ".join(map(str, variants))
        raise Refused(
            f"its decoder takes {inputs} values; a LIIF of {width} channels takes {wanted}"
        )
    found = variants[inputs]
    said = {
        _SWITCHES[key]: bool(value)
        for key, value in args.items()
        if key in _SWITCHES and not isinstance(value, Tensor)
    }
    for key, ours in _SWITCHES.items():
        if ours in found and said.get(ours, found[ours]) != found[ours]:
            raise Refused(f"it says {key} {said[ours]}, but its decoder takes {inputs} values")
    return found, said


def shuffle_tail(state: State, prefix: str, steps: list[str], last: str) -> Part:
    """Convolutions and pixel shuffles in turn, then a convolution to colours.

    Args:
        state: the file.
        prefix: what the keys begin with.
        steps: names of the convolutions of the steps.
        last: name of the last one.
    """
    width = size(state, f"{prefix}{last}.weight", 1, 4)
    growth = size(state, f"{prefix}{steps[0]}.weight", 0, 4) // width
    scale = {4: 2, 9: 3}.get(growth, 0) ** len(steps)
    rules: Rules = {f"{step}.*": f"tail.steps.{i}.*" for i, step in enumerate(steps)}
    rules[f"{last}.*"] = "tail.last.*"
    return Part(f"x{scale}", {"name": "spconv-plus", "scale": scale}, rules)


def _fixed(state: State, description: Description, scales: tuple[int, ...] | None) -> Plan:
    del scales
    check_description(description, ("liif",), {})
    encoder = find_liif_encoder(state, description)
    if encoder.config["name"] == "edsr":
        steps = [f"tail.0.{2 * i}" for i in range(count(state, f"{ENCODER}tail.0.#.weight"))]
        upsampler = shuffle_tail(state, ENCODER, steps or ["tail.0.0"], "tail.1")
    else:
        convs = count(state, f"{ENCODER}UPNet.#.weight")
        steps = [f"UPNet.{2 * i}" for i in range(convs - 1)]
        upsampler = shuffle_tail(state, ENCODER, steps or ["UPNet.0"], f"UPNet.{2 * convs - 2}")
    scale = float(upsampler.config["scale"])
    return join(encoder, upsampler, HALF, (ENCODER, ENCODER), (1.0, scale))


LIIF = Layout(
    "EDSR- or RDN-LIIF, -MetaSR",
    "LIIF (yinboc/liif)",
    ("encoder.head.0.weight|encoder.SFENet1.weight", "imnet.layers.0.weight"),
    _plan,
)
FIXED = Layout(
    "EDSR or RDN of one scale",
    "LIIF (yinboc/liif)",
    ("encoder.tail.0.0.weight|encoder.UPNet.0.weight",),
    _fixed,
)
