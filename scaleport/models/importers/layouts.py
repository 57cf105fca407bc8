"""How a file's layout is described, recognised, and made a network of.

A layout is recognised by its key names, widths and depths are read off the shapes, and every key
must have a place: weights that are silently left out make a different network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scaleport.errors import UsageError
from scaleport.models.importers.reading import Description, Refused, State, fit, mapping, none
from scaleport.models.importers.rules import Names, Rules, numbers, prefixed
from scaleport.models.importers.settings import Assumed, Settings, with_settings
from scaleport.models.network import Network, build_network

Config = dict[str, Any]
Fold = Callable[[State], State]
Check = Callable[[Network, tuple[int, ...], Tensor], bool]

EDSR_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K, which many networks take off the image."""
MEAN: Config = {"mean": list(EDSR_MEAN), "std": 1.0}
HALF: Config = {"mean": [0.5, 0.5, 0.5], "std": 0.5}
PLAIN: Config = {"mean": [0.0, 0.0, 0.0], "std": 1.0}
_NORMALISATION = ("normalisation.mean", "normalisation.std")


@dataclass(frozen=True)
class Constant:
    """Keys of a file that are no weights, and why they are not needed.

    ``check`` gets our network, the numbers in the key and the value, and says whether it is what
    our network has in its place.
    """

    template: str
    why: str
    check: Check | None = None


@dataclass(frozen=True)
class Part:
    """What the keys of an encoder or an upsampler mean.

    ``rules`` and the templates of ``constants`` are relative to the part, on both sides. What the
    file does not say is in ``assumed``; ``told`` are options that it does say, beside the shapes of
    its weights. ``fold`` changes the weights, under their names, before they are taken over.
    """

    title: str
    config: Config
    rules: Rules
    constants: tuple[Constant, ...] = ()
    assumed: tuple[Assumed, ...] = ()
    normalisation: Config | None = None
    fold: Fold | None = None
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the keys of a file mean, as a whole."""

    title: str
    config: Config
    rules: Rules
    constants: tuple[Constant, ...] = ()
    assumed: tuple[Assumed, ...] = ()
    folds: tuple[Fold, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderKeys:
    """An encoder as others save it; ``read`` is None for one that we do not have.

    ``mark`` is a key that such a file has, without its prefix.
    """

    title: str
    mark: str
    read: Callable[[State, str], Part] | None = None


@dataclass(frozen=True)
class Layout:
    """A kind of file.

    ``marks`` are keys, ``|`` between alternatives, that it is recognised by. ``plan`` also gets the
    file's own description, and the native scales that the caller knows of.
    """

    title: str
    project: str
    marks: tuple[str, ...]
    plan: Callable[[State, Description, tuple[int, ...] | None], Plan]

    def fits(self, state: State) -> bool:
        """Whether a file is of this kind."""
        return all(any(key in state for key in mark.split("|")) for mark in self.marks)


@dataclass(frozen=True)
class Imported:
    """A network of somebody else's weights, and what the file was taken for.

    Attributes:
        network: in eval mode.
        title: name of the network.
        project: whose file it is.
        assumed: what the file does not say, one sentence each.
        unused: keys that were not needed: how many, by reason.
        given: what the caller said that the file does not, by ``PART.OPTION``.
    """

    network: Network
    title: str
    project: str
    assumed: tuple[str, ...]
    unused: dict[str, int] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """All but the network, as values for JSON."""
        return {
            "recognised": self.title,
            "project": self.project,
            "assumed": list(self.assumed),
            "unused": self.unused,
            "set": self.given,
        }


def find_encoder(state: State, prefix: str, known: Iterable[EncoderKeys]) -> Part:
    """Recognise the encoder whose keys begin with ``prefix``.

    Raises:
        Refused: naming it, if it is one that we do not have.
    """
    known = tuple(known)
    for keys in known:
        if prefix + keys.mark in state:
            if keys.read is not None:
                return keys.read(state, prefix)
            have = ", ".join(dict.fromkeys(k.title for k in known if k.read is not None))
            raise Refused(f"its encoder is {keys.title}, which is not supported; supported: {have}")
    raise Refused("its encoder is of no known kind")


def join(
    encoder: Part,
    upsampler: Part,
    normalisation: Config,
    prefixes: tuple[str, str],
    scale: tuple[float, float],
) -> Plan:
    """The plan of a network from those of its parts.

    Args:
        encoder: its encoder.
        upsampler: its upsampler.
        normalisation: what is published, unless the encoder's keys tell.
        prefixes: what the keys of encoder and upsampler begin with.
        scale: declared range of scales.
    """
    parts = list(zip((encoder, upsampler), prefixes, ("encoder.", "upsampler."), strict=True))
    rules: Rules = {}
    for part, theirs, ours in parts:
        rules |= prefixed(part.rules, theirs, ours)
    config = {
        "encoder": encoder.config,
        "upsampler": upsampler.config,
        "normalisation": encoder.normalisation or normalisation,
        "scale": {"min": scale[0], "max": scale[1]},
    }
    return Plan(
        title=f"{encoder.title}-{upsampler.title}" if upsampler.title else encoder.title,
        config=config,
        rules=rules,
        constants=tuple(
            Constant(theirs + constant.template, constant.why, constant.check)
            for part, theirs, _ in parts
            for constant in part.constants
        ),
        assumed=(*encoder.assumed, *upsampler.assumed, *_normalised(config, encoder)),
        folds=tuple(part.fold for part, _, _ in parts if part.fold is not None),
        told=(
            *encoder.told,
            *upsampler.told,
            *(_NORMALISATION if encoder.normalisation is not None else ()),
        ),
    )


def _normalised(config: Config, encoder: Part) -> tuple[Assumed, ...]:
    if encoder.normalisation is not None:
        return ()
    mean, std = config["normalisation"]["mean"], config["normalisation"]["std"]
    if not any(mean) and std == 1:
        text = "normalisation as published: none, the network sees pixels in [0, 1]"
    else:
        words = ", ".join(f"{value:g}" for value in mean)
        text = f"normalisation as published: (pixel - ({words})) / {std:g}"
    return (Assumed(text, _NORMALISATION),)


def check_description(
    description: Description, names: tuple[str, ...], expected: Mapping[str, Any]
) -> None:
    """Refuse variants whose weights look the same and mean something else.

    Args:
        description: what the file says of its model.
        names: names that the model may have there.
        expected: arguments, and what they must be where they are given; ``a.b`` is argument ``b``
            in ``args`` of the specification ``a``.
    """
    name = description.get("name", names[0])
    if not isinstance(name, str) or name not in names:
        wanted = " or ".join(repr(known) for known in names)
        raise Refused(f"it says that its model is {name!r}, not {wanted}")
    args = mapping(description, "args")
    for path, value in expected.items():
        spec, _, key = path.rpartition(".")
        got = (mapping(mapping(args, spec), "args") if spec else args).get(key, value)
        if isinstance(got, Tensor):
            raise Refused(f"its description holds a tensor as {path}")
        if type(value) is bool and bool(got) != value:
            word = "without" if value else "with"
            raise Refused(f"it is a {name} {word} {key}, a variant that is not supported")
        if type(value) is not bool and got != value:
            raise Refused(f"it is a {name} with {path} {got!r} instead of {value!r}: not supported")


def recognise(
    layouts: Iterable[Layout],
    state: State,
    description: Description,
    scales: tuple[int, ...] | None,
    settings: Settings,
) -> Imported:
    """Make a network of a file's weights.

    Raises:
        Refused: if they are of no known layout, or not wholly of the one they look like.
        UsageError: if our network refuses what was read off the shapes.
        WrongSetting: if a setting is refused, or the weights do not fit it.
    """
    layouts = tuple(layouts)
    layout = next((known for known in layouts if known.fits(state)), None)
    if layout is None:
        titles = ", ".join(dict.fromkeys(known.title for known in layouts))
        raise Refused(
            "its weights are of no known layout; --spandrel may know it, if it is a network of "
            f"one scale; known: {titles}"
        )
    plan = layout.plan(state, description, scales)
    for fold in plan.folds:
        state = fold(state)
    network = build_network(plan.config)
    unused = _fill(network, state, plan)
    if settings:
        network, unused = _refilled(state, plan, settings)
    assumed = tuple(one.text for one in plan.assumed if one.stands(settings))
    return Imported(
        network.eval(), plan.title, layout.project, assumed, unused, dict(sorted(settings.items()))
    )


class WrongSetting(UsageError):
    """A setting that is refused, or that the weights do not fit."""


def _refilled(state: State, plan: Plan, settings: Settings) -> tuple[Network, dict[str, int]]:
    """The network with some options set, which was found to be whole without them."""
    words = ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    try:
        network = build_network(with_settings(plan.config, settings, plan.told))
        return network, _fill(network, state, plan)
    except Refused as error:
        raise WrongSetting(f"--set {words} does not fit the weights: {error}") from error
    except UsageError as error:
        raise WrongSetting(str(error)) from error


def _fill(network: Network, state: State, plan: Plan) -> dict[str, int]:
    """Load a file's weights; how many keys were not needed, by reason."""
    names, target = Names(plan.rules), network.state_dict()
    weights: dict[str, str] = {}
    constants: list[tuple[str, Constant, tuple[int, ...]]] = []
    homeless = []
    for key in state:
        name = names.ours(key)
        if name in target and name not in weights:
            weights[name] = key
            continue
        found = _constant(plan.constants, key)
        if found is None:
            homeless.append(key)
        else:
            constants.append((key, *found))
    none(f"it is not a plain {plan.title}: no place for", homeless)
    missing = [names.theirs(name) or name for name in target if name not in weights]
    none(f"it is not a whole {plan.title}: missing are", missing)
    loaded = {name: fit(key, state[key], target[name]) for name, key in weights.items()}
    network.load_state_dict(loaded)
    unused: dict[str, int] = {}
    for key, constant, place in constants:
        if constant.check is not None and not _agrees(constant.check, network, place, state[key]):
            raise Refused(f"{key} is not what a {plan.title} has there ({constant.why})")
        unused[constant.why] = unused.get(constant.why, 0) + 1
    return unused


def _constant(constants: tuple[Constant, ...], key: str) -> tuple[Constant, tuple[int, ...]] | None:
    for constant in constants:
        place = numbers(constant.template, key)
        if place is not None:
            return constant, place
    return None


def _agrees(check: Check, network: Network, place: tuple[int, ...], value: Tensor) -> bool:
    try:
        return check(network, place, value)
    except (IndexError, RuntimeError, AttributeError):  # of another shape, or of no such block
        return False


def same(value: Tensor, expected: Tensor) -> bool:
    """Whether a constant has the expected values, in whatever type and grouping."""
    value = value.detach().to(expected.dtype).flatten()
    return value.shape == expected.flatten().shape and bool(torch.equal(value, expected.flatten()))
