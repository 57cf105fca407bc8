"""What a file of weights does not say: what is assumed of it, and what its owner knows better."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scaleport.errors import UsageError

Settings = Mapping[str, Any]
"""Values by ``PART.OPTION``, such as ``{"encoder.residual_scale": 0.1}``."""

PARTS = ("encoder", "upsampler", "normalisation", "scale")


@dataclass(frozen=True)
class Assumed:
    """Something that a file does not say.

    Attributes:
        text: one sentence without a full stop.
        options: what says otherwise, as ``PART.OPTION``.
    """

    text: str
    options: tuple[str, ...] = ()

    def stands(self, settings: Settings) -> bool:
        """Whether nothing was said instead."""
        return not set(self.options) & set(settings)


def with_settings(
    config: dict[str, Any], settings: Settings, told: Iterable[str]
) -> dict[str, Any]:
    """A network's configuration with some options set.

    Args:
        config: what was read off a file and assumed of it.
        settings: options to set.
        told: options that the file itself tells.

    Raises:
        UsageError: if there is no such part or option, or the file tells something else.
    """
    told = set(told)
    made = {part: dict(options) for part, options in config.items()}
    for name, value in settings.items():
        part, _, option = name.partition(".")
        if part not in PARTS or not option or option == "name":
            raise UsageError(
                f"--set takes PART.OPTION=VALUE with a part of {', '.join(PARTS)}, such as "
                f"encoder.residual_scale=0.1; got {name!r}"
            )
        if name in told and made[part].get(option) != value:
            said = json.dumps(made[part].get(option))
            raise UsageError(f"--set {name}: the file itself says {said}")
        made[part][option] = value
    return made


def setting_of(text: str) -> tuple[str, Any]:
    """``PART.OPTION=VALUE`` as a name and a value.

    Values are numbers, ``true``, ``false``, words, or lists of them between commas or brackets.

    Raises:
        UsageError: if it is not that.
    """
    name, found, value = (part.strip() for part in text.partition("="))
    if not found or "." not in name or not value:
        raise UsageError(
            f"--set takes PART.OPTION=VALUE such as encoder.residual_scale=0.1; got {text!r}"
        )
    if "," in value and not value.startswith("["):
        return name, [_value(part.strip()) for part in value.split(",") if part.strip()]
    return name, _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings_of(texts: Iterable[str]) -> dict[str, Any]:
    """Several of them.

    Raises:
        UsageError: if one is not a setting, or two are of one option.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = setting_of(text)
        if name in found:
            raise UsageError(f"--set {name} is given twice")
        found[name] = value
    return found
