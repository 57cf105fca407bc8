"""Which of our weights a key of theirs means, as templates that are read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping

Rules = dict[str, str]
"""Our template by theirs. ``#`` stands for a number, ``*`` for one last part of a name."""

_PARTS = {"#": r"(\d+)", "*": r"([^.]+)"}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("".join(_PARTS.get(char, re.escape(char)) for char in template))


def _fill(template: str, parts: tuple[str, ...]) -> str:
    left = iter(parts)
    return "".join(next(left) if char in _PARTS else char for char in template)


def prefixed(rules: Mapping[str, str], theirs: str, ours: str) -> Rules:
    """The same rules for keys below a prefix."""
    return {theirs + a: ours + b for a, b in rules.items()}


class Names:
    """Rules, ready to be applied."""

    def __init__(self, rules: Mapping[str, str]) -> None:
        self._rules = [(_pattern(a), a, _pattern(b), b) for a, b in rules.items()]

    def ours(self, key: str) -> str | None:
        """Our name for a key of theirs, if a rule knows it."""
        for pattern, _, _, template in self._rules:
            match = pattern.fullmatch(key)
            if match is not None:
                return _fill(template, match.groups())
        return None

    def theirs(self, name: str) -> str | None:
        """Their key for a name of ours."""
        for _, template, pattern, _ in self._rules:
            match = pattern.fullmatch(name)
            if match is not None:
                return _fill(template, match.groups())
        return None


def numbers(template: str, key: str) -> tuple[int, ...] | None:
    """The numbers of a key that a template fits, else None."""
    match = _pattern(template).fullmatch(key)
    if match is None:
        return None
    places = [char for char in template if char in _PARTS]
    pairs = zip(places, match.groups(), strict=True)
    return tuple(int(part) for place, part in pairs if place == "#")
