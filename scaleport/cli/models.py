"""``scaleport models``: the models that can be named, and what is known of them."""

from __future__ import annotations

from typing import Any

from scaleport.card import Card
from scaleport.cli.output import JsonFlag, Output, QuietFlag, VerboseFlag
from scaleport.ready import DEFAULT, DEFAULT_BEYOND, Model
from scaleport.ready import models as all_models

EXAMPLES = """\b
Examples:
  scaleport models
  scaleport models --json
"""


def models(
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    """List the models that can be named: those of the package, and those exported here.

    "scaleport upscale photo.jpg -m NAME" takes one of them. "scaleport inspect NAME" shows all
    scores and the limits of one. No torch is needed.
    """
    out = Output(as_json, quiet, verbose)
    found = all_models()
    out.result({"default": DEFAULT, "models": [described(model) for model in found]})
    if not found:
        out.say("no models: this checkout comes without them; make models writes them")
        return
    rows = [(model.name, scales_text(model), score(model), model.purpose) for model in found]
    out.say_table([("name", "scales", "PSNR dB (gain over bicubic)", "for"), *rows], indent="")
    out.say("")
    out.say(f"Without -m, upscale takes {DEFAULT}, and {DEFAULT_BEYOND} beyond its scales.")
    if verbose:
        for model in found:
            if model.card is not None:
                out.say("")
                out.say(f"{model.name}: {model.card.limits}")


def score(model: Model) -> str:
    """The most telling scores of a model, in one line."""
    return "-" if model.card is None else model.card.headline


def scales_text(model: Model) -> str:
    """The range of scales, e.g. ``x1 to x8``."""
    return f"x{model.scale[0]:g} to x{model.scale[1]:g}"


def described(model: Model) -> dict[str, Any]:
    """A model as JSON."""
    card: Card | None = model.card
    return {
        "name": model.name,
        "purpose": model.purpose or None,
        "bundle": model.bundle,
        "scale": {"min": model.scale[0], "max": model.scale[1]},
        "native_scales": model.native_scales,
        "parameters": model.parameters,
        "license": model.license or None,
        "summary": None if card is None else card.summary,
        "protocol": None if card is None else card.protocol,
        "scores": [] if card is None else list(card.scores),
        "limits": None if card is None else card.limits,
    }


def say_card(out: Output, model: Model) -> None:
    """Purpose, scores and limits of a model of the package."""
    if model.card is None:
        return
    out.say("what it is")
    out.say_table([("for", model.purpose), ("summary", model.card.summary)])
    out.say("scores")
    out.say_table([("how", model.card.protocol)])
    heads = tuple(model.card.scores[0])
    out.say_table([heads, *(tuple(row.values()) for row in model.card.scores)])
    out.say("limits")
    out.say_table([("", model.card.limits)])
